"""Hessian-free MAML: second order from differences of gradients.

Fallah, Mokhtari and Ozdaglar, "On the Convergence Theory of Gradient-Based Model-Agnostic Meta-Learning
Algorithms" (2020), HF-MAML. For one step of gradient descent, the meta-gradient (I − αH)v, v the gradient of
the query loss, takes for H·v the difference [∇L(θ + δv) − ∇L(θ − δv)] / 2δ. Here the same product is taken at
every step of any rule on the way back: torch differentiates the rule, and the base-learner only once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from metalearn_core import (
    BaseLearner,
    Clipping,
    Order,
    Signal,
    State,
    Task,
    UpdateRule,
    UsageError,
    hookimpl,
    loss_weights,
    query_losses,
    support_losses,
    trajectory,
)


def hessian_free(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, task: Task,
    *, steps: int, order: Order = "second", clip: Clipping | None = None,
    truncate: int | None = None, outer_decay: float | None = None, difference: float = 1e-2,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """From v = ∇L_query(θ⁽ᵀ⁾) back to t = 0: v ← v_θ + H v_g   (Fallah et al., 2020, HF-MAML).

    v_θ and v_g are what the rule's step sends back to θ and to the gradient that it was shown. For gradient
    descent v_θ = v and v_g = −αv, which is the paper's. φ gets its gradient on the way.

    Args:
        difference: δ, how far θ is moved to see H v_g, as a length in the space of θ.
    """
    if order != "second":
        raise UsageError("hessian-free: it is of second order: leave order out, or take backpropagation")
    if type(difference) not in (int, float) or not 0 < difference < math.inf:
        raise UsageError(f"hessian-free: difference must be a number > 0, got {difference!r:.60}")
    if rule.uses_support or rule.has_start:
        raise UsageError(
            f"hessian-free: rule {rule.label} reads the support set itself, and differences are of its"
            " gradient alone: take backpropagation"
        )
    task = task if task.stacked else Task.stack([task])
    weights = loss_weights(steps, outer_decay)
    with torch.no_grad():
        path = list(trajectory(rule, learner, theta, task.support, steps=steps, clip=clip))
    total, v = theta.new_zeros(()), torch.zeros_like(path[0][0].expand(len(task), -1))
    of_state = [torch.zeros_like(leaf) for leaf in pytree.tree_leaves(path[0][1])]
    of_phi = {name: torch.zeros_like(phi) for name, phi in rule.named_parameters()}
    first = 0 if truncate is None else steps - truncate
    for t in reversed(range(steps + 1)):
        if t < steps and t >= first:
            support = functools.partial(support_losses, step=t)
            loss, grad = _slope(support, learner, path[t][0], task)
            back = _back(rule, t, steps, grad, loss, clip, path[t], [v, *of_state], of_phi)
            v_theta, v_grad, v_loss, *of_state = back
            v = v_theta + v_loss.unsqueeze(-1) * grad
            v = v + _hessian_product(support, learner, path[t][0], task, v_grad, difference)
        if t in weights:
            losses, grad = _slope(query_losses, learner, path[t][0], task)
            total = total + weights[t] * losses.mean()
            v = v + weights[t] / len(task) * grad
    v = v + _back_to_start(rule, path[0][0], of_state, of_phi)
    return total, v if theta.ndim == 2 else v.sum(0), of_phi


def _hessian_product(
    losses: Callable[..., Tensor], learner: BaseLearner, theta: Tensor, task: Task, v: Tensor,
    difference: float,
) -> Tensor:  # fmt: skip
    """H v ≈ [∇L(θ + δv/|v|) − ∇L(θ − δv/|v|)] |v| / 2δ, for each task."""
    length: Tensor = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    moved = difference * v / torch.where(length > 0, length, 1)
    _, above = _slope(losses, learner, theta + moved, task)
    _, below = _slope(losses, learner, theta - moved, task)
    return (above - below) * length / (2 * difference)


def _slope(
    losses: Callable[..., Tensor], learner: BaseLearner, theta: Tensor, task: Task
) -> tuple[Tensor, Tensor]:
    """Losses `[tasks]`, and each task's gradient `[tasks, n]`, as constants."""
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        found = losses(learner, theta, task)
        (grad,) = torch.autograd.grad(found.sum() + 0 * theta.sum(), theta)
    return found.detach(), grad


def _back(
    rule: UpdateRule, t: int, steps: int, grad: Tensor, loss: Tensor, clip: Clipping | None,
    now: tuple[Tensor, State], after: list[Tensor], of_phi: dict[str, Tensor],
) -> list[Tensor]:  # fmt: skip
    """What step t sends back to θ, gradient, loss and state; what it sends to φ is added to `of_phi`."""

    def update(theta: Tensor, grad: Tensor, loss: Tensor, state: State) -> tuple[Tensor, State]:
        return rule.update(theta, Signal(grad, loss, t, steps=steps), state)

    with torch.enable_grad():
        given = pytree.tree_map(_leaf, (now[0], grad, loss, now[1]))
        theta, grad, loss, state = given
        batched = update if rule.elementwise else vmap(update)
        moved = batched(theta, grad if clip is None else clip(grad), loss, state)
        return _sent_back(rule, pytree.tree_leaves(moved), after, pytree.tree_leaves(given), of_phi)


def _back_to_start(
    rule: UpdateRule, theta: Tensor, after: list[Tensor], of_phi: dict[str, Tensor]
) -> Tensor:  # fmt: skip
    """What the state at t = 0 sends back to θ⁰ and, added to `of_phi`, to φ."""
    with torch.enable_grad():
        theta = _leaf(theta)
        state = (rule.init_state if rule.elementwise else vmap(rule.init_state))(theta)
        (found,) = _sent_back(rule, pytree.tree_leaves(state), after, [theta], of_phi)
    return found


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_(x.is_floating_point())


def _sent_back(
    rule: UpdateRule, outputs: list[Tensor], after: list[Tensor], inputs: list[Tensor],
    of_phi: dict[str, Tensor],
) -> list[Tensor]:  # fmt: skip
    """The vector-Jacobian product for the inputs; that for φ is added to `of_phi`."""
    learned = {name: phi for name, phi in rule.named_parameters() if phi.requires_grad}
    wanted = [*(x for x in inputs if x.requires_grad), *learned.values()]
    reached = [(y, v) for y, v in zip(outputs, after, strict=True) if y.requires_grad]
    if not reached:
        return [torch.zeros_like(x) for x in inputs]
    ends, vectors = zip(*reached, strict=True)
    found = iter(torch.autograd.grad(ends, wanted, vectors, allow_unused=True))
    filled = [(next(found) if x.requires_grad else None, x) for x in inputs]
    for name, g in zip(learned, found, strict=True):
        of_phi[name] = of_phi[name] if g is None else of_phi[name] + g
    return [torch.zeros_like(x) if g is None else g for g, x in filled]


@hookimpl
def metalearn_meta_gradients() -> Mapping[str, Callable[..., Any]]:
    """The outer gradient, by its name."""
    return {"hessian-free": hessian_free}
