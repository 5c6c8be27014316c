"""The meta-gradient: the gradients of the outer loss for θ⁰ and φ (Algorithm 9, line 11)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.func import vmap

from metalearn_core.errors import require_kinds, user_code
from metalearn_core.inner_loop import per_task, require_unroll, trajectory, unroll
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import State, UpdateRule
from metalearn_core.safeguards.same_alone import check_first_batch
from metalearn_core.settings import Clipping, Order
from metalearn_core.task import Task


def loss_weights(steps: int, decay: float | None) -> dict[int, float]:
    """What each query loss L(θ⁽ᵗ⁾) weighs in the outer loss: γᵀ⁻ᵗ, t = 1 ... T, in sum 1; None: T alone.

    Args:
        steps: T.
        decay: γ, the `outer_decay` of `meta_gradient`.

    Returns:
        `{t: weight}`.

    Example:
        >>> from metalearn_core import loss_weights
        >>> loss_weights(5, None), loss_weights(2, 1.0)
        ({5: 1.0}, {1: 0.5, 2: 0.5})
    """
    if decay is None or steps == 0:
        return {steps: 1.0}
    weights = {t: decay ** (steps - t) for t in range(1, steps + 1)}
    return {t: weight / sum(weights.values()) for t, weight in weights.items()}


def _outer_loss(
    path: Iterator[tuple[Tensor, State]], weights: Mapping[int, float], loss_of: Callable[[Tensor], Tensor]
) -> Tensor:
    """Σₜ wₜ L(θ⁽ᵗ⁾) along a path."""
    terms = (weights[t] * loss_of(theta) for t, (theta, _) in enumerate(path) if t in weights)
    return functools.reduce(torch.add, terms)


def meta_gradient(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, task: Task,
    *, steps: int, order: Order = "second", clip: Clipping | None = None,
    truncate: int | None = None, outer_decay: float | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """Differentiate the mean query loss at θ⁽ᵀ⁾ for θ⁰ and φ (Algorithm 9, line 11).

    Args:
        rule: the update rule, whose parameters are φ.
        learner: the base-learner.
        theta: θ⁰, `[n]` shared by all tasks, or `[tasks, n]`.
        task: one task or a stacked meta-batch.
        steps: T, at least 0.
        order: `"second"` differentiates through the support gradients, `"first"` takes them for constants.
        clip: bounds the support gradient of each task before the rule sees it.
        truncate: differentiate this many of the last updates; None: all of them. See `Settings`.
        outer_decay: γ in (0, 1]: the loss is then the mean of the query losses at t = 1 ... T, each with
            the weight γᵀ⁻ᵗ. None takes the query loss at T alone.

    Returns:
        The loss `[]`, its gradient for θ⁰ in the shape of `theta`, and `{name: gradient}` with every φ.
        A φ that the loss does not depend on has a gradient of zeros, never None.

    Raises:
        UsageError: as `adapt` does.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalearn_core import BaseLearner, Batch, Task, make_rule, meta_gradient
        >>> learner = BaseLearner(nn.Linear(1, 1, bias=False), nn.functional.mse_loss)
        >>> rule = make_rule("gradient-descent", learner.layout, inner_lr=0.25)
        >>> examples = Batch(torch.ones(1, 1), torch.ones(1, 1))  # the loss is (θ − 1)²
        >>> task = Task(support=examples, query=examples)
        >>> loss, grad, of_phi = meta_gradient(rule, learner, torch.zeros(1), task, steps=2)
        >>> loss.item(), grad.tolist(), of_phi
        (0.0625, [-0.125], {})
        >>> _, grad, _ = meta_gradient(rule, learner, torch.zeros(1), task, steps=2, order="first")
        >>> grad.tolist()
        [-0.5]
    """
    require_kinds("meta_gradient", rule=(rule, UpdateRule), learner=(learner, BaseLearner))
    require_kinds("meta_gradient", theta=(theta, Tensor), task=(task, Task))
    require_unroll(steps, order, truncate, outer_decay)
    task = task if task.stacked else Task.stack([task])
    phi = dict(rule.named_parameters())
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        path = trajectory(
            rule, learner, theta, task.support, steps=steps, order=order, clip=clip, truncate=truncate
        )
        context = learner.context(task)
        check_first_batch(learner, theta, task.query, *context, derivatives=1)
        loss = _outer_loss(
            path, loss_weights(steps, outer_decay),
            lambda theta: per_task(learner.loss, theta, task.query, *context).mean(),
        )  # fmt: skip
        return loss.detach(), *_gradients(loss, theta, phi)


def meta_gradients(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, phi: Mapping[str, Tensor], task: Task,
    *, steps: int, order: Order = "second", clip: Clipping | None = None,
    truncate: int | None = None, outer_decay: float | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """`meta_gradient` of several seeds on the same meta-batch, each with its own θ⁰ and φ.

    Args:
        theta: `[seeds, n]`.
        phi: what stands in the places of the rule's parameters, each leading with `[seeds]`.
        task: a stacked meta-batch.

    Returns:
        Losses `[seeds]` and the gradients, shaped as `theta` and `phi`.
    """
    learned = {name: parameter.requires_grad for name, parameter in rule.named_parameters()}
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        phi = {name: value.detach().requires_grad_(learned[name]) for name, value in phi.items()}
        start = theta.unsqueeze(1).expand(-1, len(task), -1)
        path = unroll(rule, learner, start, task.support, steps, order, clip, True, truncate, phi)
        context = learner.context(task)
        of_seed = vmap(lambda theta: per_task(learner.loss, theta, task.query, *context))
        weights = loss_weights(steps, outer_decay)
        losses = _outer_loss(path, weights, lambda theta: of_seed(theta).mean(1))
        return losses.detach(), *_gradients(losses.sum(), theta, phi)


def _gradients(loss: Tensor, theta: Tensor, phi: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """For θ⁰ and every φ; zeros for what the loss does not depend on, and for what is not learned."""
    learned = {name: value for name, value in phi.items() if value.requires_grad}
    anchored = loss + 0 * theta.sum().real  # a loss that θ⁰ does not reach still has a gradient, 0
    with user_code("meta_gradient", "the backward pass"):
        found = torch.autograd.grad(anchored, [theta, *learned.values()], allow_unused=True)
    grads = {name: torch.zeros_like(value) for name, value in phi.items()}
    grads |= {name: g for name, g in zip(learned, found[1:], strict=True) if g is not None}
    return found[0], grads
