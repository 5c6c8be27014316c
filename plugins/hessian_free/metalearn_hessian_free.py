"""Second order with one product of the Hessian and a vector for each step, on the way back from T to 0.

Of the way there, θ and the state are kept alone. At each step torch differentiates the rule, and the
base-learner's part is a product H·v, taken in one of two ways:

`hessian-free`: a difference of gradients, [∇L(θ + δv) − ∇L(θ − δv)] / 2δ. Fallah, Mokhtari and Ozdaglar, "On
the Convergence Theory of Gradient-Based Model-Agnostic Meta-Learning Algorithms" (2020), HF-MAML. There it is
for one step of gradient descent, whose meta-gradient is (I − αH)v; here it is for every step of any rule.

`mixed-mode`: the derivative of ∇L along v, forward over reverse, which is exact. Kemaev et al., "Scalable
Meta-Learning via Mixed-Mode Differentiation" (2025), MixFlow-MG.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import grad as grad_of
from torch.func import jvp, vmap
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

Product: TypeAlias = Callable[[Callable[..., Tensor], BaseLearner, Tensor, Task, Tensor], Tensor]
"""H v for each task, of losses, base-learner, θ, task and v."""


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
    if type(difference) not in (int, float) or not 0 < difference < math.inf:
        raise UsageError(f"hessian-free: difference must be a number > 0, got {difference!r:.60}")
    _require_steps_alone("hessian-free", rule, order)
    product = functools.partial(_product_by_differences, difference=difference)
    return _back_from_the_end(product, rule, learner, theta, task, steps, clip, truncate, outer_decay)


def mixed_mode(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, task: Task,
    *, steps: int, order: Order = "second", clip: Clipping | None = None,
    truncate: int | None = None, outer_decay: float | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """Back from t = T to 0: v ← v_θ + d/dε ∇L(θ + ε v_g), forward over reverse   (Kemaev et al., 2025).

    v_θ and v_g are what the rule's step sends back to θ and to the gradient that it was shown. It is the
    meta-gradient of backpropagation, in other memory: the path of θ and the state, and one step's work.

    Raises:
        UsageError: the base-learner's loss has no forward-mode derivative.
    """
    _require_steps_alone("mixed-mode", rule, order)
    return _back_from_the_end(
        _product_by_forward_mode, rule, learner, theta, task, steps, clip, truncate, outer_decay
    )


def _require_steps_alone(name: str, rule: UpdateRule, order: Order) -> None:
    if order != "second":
        raise UsageError(f"{name}: it is of second order: leave order out, or take backpropagation")
    if rule.uses_support or rule.has_start or rule.uses_noise:
        raise UsageError(
            f"{name}: rule {rule.label} reads the support set itself, has a start or draws noise, which"
            " steps taken back one by one do not get: take backpropagation"
        )


def _back_from_the_end(
    product: Product, rule: UpdateRule, learner: BaseLearner, theta: Tensor, task: Task, steps: int,
    clip: Clipping | None, truncate: int | None, outer_decay: float | None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
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
            v = v_theta + v_loss.unsqueeze(-1) * grad + product(support, learner, path[t][0], task, v_grad)
        if t in weights:
            losses, grad = _slope(query_losses, learner, path[t][0], task)
            total = total + weights[t] * losses.mean()
            v = v + weights[t] / len(task) * grad
    v = v + _back_to_start(rule, path[0][0], of_state, of_phi)
    return total, v if theta.ndim == 2 else v.sum(0), of_phi


def _product_by_differences(
    losses: Callable[..., Tensor], learner: BaseLearner, theta: Tensor, task: Task, v: Tensor,
    difference: float,
) -> Tensor:  # fmt: skip
    """H v ≈ [∇L(θ + δv/|v|) − ∇L(θ − δv/|v|)] |v| / 2δ, for each task."""
    length: Tensor = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    moved = difference * v / torch.where(length > 0, length, 1)
    _, above = _slope(losses, learner, theta + moved, task)
    _, below = _slope(losses, learner, theta - moved, task)
    return (above - below) * length / (2 * difference)


def _product_by_forward_mode(
    losses: Callable[..., Tensor], learner: BaseLearner, theta: Tensor, task: Task, v: Tensor
) -> Tensor:
    """H v = d/dε ∇L(θ + εv) at ε = 0, for each task."""
    slope = grad_of(lambda at: losses(learner, at, task).sum())
    try:
        with warnings.catch_warnings():  # torch's own first use of forward mode, in 2.13
            warnings.filterwarnings("ignore", ".*torch.jit.script.* is deprecated", DeprecationWarning)
            found: Tensor = jvp(slope, (theta.contiguous(),), (v.contiguous(),))[1]
    except (NotImplementedError, RuntimeError, UsageError) as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise UsageError(
            f"mixed-mode: the base-learner's loss has no forward-mode derivative ({reason:.120}): take"
            " hessian-free, or backpropagation with checkpoint_every = 1"
        ) from error
    return found


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
    """The outer gradients, by their names."""
    return {"hessian-free": hessian_free, "mixed-mode": mixed_mode}
