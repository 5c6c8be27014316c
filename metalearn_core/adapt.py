"""The inner loop, Algorithm 9 lines 6-9, and the meta-gradient of its line 11."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from metalearn_core._higher import BatchedUpdate, InnerOptimizer
from metalearn_core.errors import UsageError, unknown
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import Signal, State, Undeclared, UpdateRule
from metalearn_core.task import Batch, Task

Order: TypeAlias = Literal["first", "second"]
ORDERS: tuple[Order, ...] = ("first", "second")


@attrs.frozen
class Clipping:
    """A bound on gradients, part of a method. `by`: each element's value, or a vector's norm."""

    by: Literal["value", "norm"]
    limit: float

    def __attrs_post_init__(self) -> None:
        if self.by not in ("value", "norm"):
            raise unknown("way of clipping", str(self.by), ("value", "norm"))
        if not self.limit > 0:
            raise UsageError(f"Clipping: the limit must be positive, got {self.limit}")

    def __call__(self, grad: Tensor) -> Tensor:
        """The gradient, `[..., n]`, clipped; each vector by its own norm."""
        if self.by == "value":
            return grad.clamp(-self.limit, self.limit)
        norm = torch.linalg.vector_norm(grad, dim=-1, keepdim=True)
        return grad * (self.limit / (norm + 1e-6)).clamp(max=1.0)


def adapt(
    rule: UpdateRule,
    learner: BaseLearner,
    theta: Tensor,
    support: Batch,
    *,
    steps: int,
    order: Order = "second",
    clip: Clipping | None = None,
) -> Tensor:
    """Adapt θ to a support set in `steps` updates of `rule`: θ⁽ᵀ⁾ (Algorithm 9, lines 6-9).

    Args:
        theta: `[n]`, or one start for each task of a meta-batch, `[tasks, n]`.
        support: one task's, or that of a stacked `Task`; with θ `[tasks, n]` it is read as stacked.
        steps: T >= 0.
        order: `"second"` differentiates through the support gradients; `"first"` takes them, and the
            support loss, for constants.
        clip: bound on each task's support gradient before the rule sees it.

    Returns:
        `[n]`, or `[tasks, n]` for a meta-batch. Under `torch.no_grad()` no graph is kept.

    Raises:
        UsageError: for arguments that do not fit, and for a rule that breaks its contract.
    """
    path = trajectory(rule, learner, theta, support, steps=steps, order=order, clip=clip)
    for theta, _ in path:  # noqa: B007 - the last one is wanted
        pass
    return theta


def trajectory(
    rule: UpdateRule,
    learner: BaseLearner,
    theta: Tensor,
    support: Batch,
    *,
    steps: int,
    order: Order = "second",
    clip: Clipping | None = None,
) -> Iterator[tuple[Tensor, State]]:
    """Yield (θ⁽ᵗ⁾, state) for t = 0 ... T; arguments and shapes as in `adapt`."""
    _require_valid(learner, theta, steps, order)
    stacked = support.stacked or theta.ndim == 2
    if not stacked:
        theta, support = theta.unsqueeze(0), support.map(lambda x: x.unsqueeze(0), stacked=True)
    elif not support.stacked:
        support = Batch(support.inputs, support.targets, stacked=True)
    tasks = support.inputs.shape[0]
    if theta.ndim == 2 and theta.shape[0] != tasks:
        raise UsageError(f"adapt: {theta.shape[0]} starts for {tasks} tasks; give one start or one each")
    path = _unroll(rule, learner, theta.expand(tasks, -1), support, steps, order, clip)
    if stacked:
        return path
    return ((theta[0], pytree.tree_map(lambda s: s[0], state)) for theta, state in path)


def task_losses(learner: BaseLearner, theta: Tensor, batch: Batch) -> Tensor:
    """The loss of each task at its own θ, `[tasks, n]`, on a stacked batch: `[tasks]`."""
    return _per_task(learner.loss, theta, batch)


def task_scores(learner: BaseLearner, theta: Tensor, batch: Batch) -> Tensor:
    """The score of each task at its own θ, `[tasks, n]`, on a stacked batch: `[tasks]`."""
    return _per_task(learner.score, theta, batch)


def meta_gradient(
    rule: UpdateRule,
    learner: BaseLearner,
    theta: Tensor,
    task: Task,
    *,
    steps: int,
    order: Order = "second",
    clip: Clipping | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Mean query loss over tasks at θ⁽ᵀ⁾, and its gradients for θ⁰ and φ (Algorithm 9, line 11).

    Args:
        theta: θ⁰, `[n]` shared by all tasks or `[tasks, n]`; its gradient has the same shape.
        task: one task or a stacked meta-batch; further arguments as in `adapt`.

    Returns:
        The loss `[]`, the gradient for θ⁰, and `{name: gradient}` with every φ; what the loss does
        not depend on has a gradient of zeros, never None.
    """
    losses, grad, phi_grads = task_meta_gradient(
        rule, learner, theta, task, steps=steps, order=order, clip=clip
    )
    return losses.mean(), grad, phi_grads


def task_meta_gradient(
    rule: UpdateRule,
    learner: BaseLearner,
    theta: Tensor,
    task: Task,
    *,
    steps: int,
    order: Order,
    clip: Clipping | None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """`meta_gradient`, with the query loss of each task, `[tasks]`, in place of their mean."""
    if not task.stacked:
        task = Task.stack([task])
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        start = theta if theta.ndim == 2 else theta.expand(len(task), -1)
        adapted = adapt(rule, learner, start, task.support, steps=steps, order=order, clip=clip)
        losses = task_losses(learner, adapted, task.query)
        phi = dict(rule.named_parameters())
        learned = {name: parameter for name, parameter in phi.items() if parameter.requires_grad}
        grads = torch.autograd.grad(
            losses.mean() + 0 * theta.sum(), [theta, *learned.values()], allow_unused=True
        )
    found = dict(zip(learned, grads[1:], strict=True))
    filled = {}
    for name, parameter in phi.items():
        grad = found.get(name)
        filled[name] = torch.zeros_like(parameter) if grad is None else grad
    assert grads[0] is not None
    return losses.detach(), grads[0], filled


def _unroll(
    rule: UpdateRule,
    learner: BaseLearner,
    theta: Tensor,
    support: Batch,
    steps: int,
    order: Order,
    clip: Clipping | None,
) -> Iterator[tuple[Tensor, State]]:
    """The loop itself, on stacks: θ `[tasks, n]`, every task with its own gradient."""
    track = torch.is_grad_enabled()
    inner = InnerOptimizer(track=track)
    state = rule.init_state(theta) if rule.elementwise else vmap(rule.init_state)(theta)
    yield theta, state
    for step in range(steps):
        with torch.enable_grad():
            theta = theta if theta.requires_grad else theta.detach().requires_grad_()
            losses = task_losses(learner, theta, support)
            total = losses.sum()
            if not total.requires_grad:  # a loss that does not look at θ
                total = (0 * theta).sum()
        constant = order == "first" or not track
        seen = losses.detach() if constant else losses
        update = functools.partial(_batched_update, rule, step, seen)
        transform = functools.partial(_transform, constant, clip)
        with torch.set_grad_enabled(track):
            # no two tasks share a row of θ, so the gradient of the sum is each task's own
            theta, state = inner.step(total, theta, transform, update, state)
        yield (theta if track else theta.detach()), state


def _transform(constant: bool, clip: Clipping | None, grad: Tensor) -> Tensor:
    grad = grad.detach() if constant else grad
    return grad if clip is None else clip(grad)


def _batched_update(
    rule: UpdateRule, step: int, losses: Tensor, theta: Tensor, grad: Tensor, state: State
) -> tuple[Tensor, State]:
    """One step of the rule for every task: `[tasks, n]`."""
    undeclared = Undeclared(rule.label)
    shown_step = step if rule.uses_step else undeclared

    def one(
        theta: Tensor, grad: Tensor, loss: Tensor, state: State
    ) -> tuple[Tensor, State]:
        signal = Signal(grad, loss if rule.uses_loss else undeclared, shown_step)
        answer = rule.update(theta, signal, state)
        return _require_contract(rule, theta, state, answer)

    batched: Callable[..., tuple[Tensor, State]] = one if rule.elementwise else vmap(one)
    return batched(theta, grad, losses, state)


def _require_contract(
    rule: UpdateRule, theta: Tensor, state: State, answer: object
) -> tuple[Tensor, State]:
    """The rule's answer, if it has the shape, dtype and structure that the rule was given."""
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[0], Tensor):
        raise UsageError(f"rule {rule.label}: update must return (theta, state)")
    after, state_after = answer
    if after.shape != theta.shape or after.dtype != theta.dtype:
        raise UsageError(
            f"rule {rule.label}: update returned θ of shape {tuple(after.shape)} and {after.dtype},"
            f" it was given {tuple(theta.shape)} and {theta.dtype}"
        )
    (old, shape), (new, shape_after) = pytree.tree_flatten(state), pytree.tree_flatten(state_after)
    if shape != shape_after:
        raise UsageError(
            f"rule {rule.label}: update returned a state of structure {shape_after},"
            f" it was given {shape}"
        )
    for before, now in itertools.zip_longest(old, new):
        if not isinstance(now, Tensor) or (before.shape, before.dtype) != (now.shape, now.dtype):
            got = (tuple(now.shape), now.dtype) if isinstance(now, Tensor) else type(now).__name__
            raise UsageError(
                f"rule {rule.label}: a state tensor of {tuple(before.shape)}, {before.dtype}"
                f" came back as {got}"
            )
    return after, state_after


def _per_task(
    criterion: Callable[[Tensor, Batch], Tensor], theta: Tensor, batch: Batch
) -> Tensor:
    def one(theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return criterion(theta, Batch(inputs, targets))

    values: Tensor = vmap(one)(theta, batch.inputs, batch.targets)
    return values


def _require_valid(learner: BaseLearner, theta: Tensor, steps: int, order: str) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise UsageError(f"adapt: steps must be an integer >= 0, got {steps!r}")
    if order not in ORDERS:
        raise unknown("order", str(order), ORDERS)
    if theta.ndim not in (1, 2) or theta.shape[-1] != learner.layout.size:
        raise UsageError(
            f"adapt: theta must be [n] or [tasks, n] with n = {learner.layout.size},"
            f" got shape {tuple(theta.shape)}"
        )
