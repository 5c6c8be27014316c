"""The inner loop, Algorithm 9 lines 6-9, and the meta-gradient of its line 11."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from metalearn_core.errors import UsageError, own_code, require_kinds, unknown
from metalearn_core.learner import BaseLearner
from metalearn_core.optimizers.differentiable import InnerOptimizer
from metalearn_core.rule import Signal, State, Undeclared, UpdateRule, parameters_as
from metalearn_core.settings import ORDERS, Clipping, Order
from metalearn_core.task import Batch, Task


def adapt(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch,
    *, steps: int, order: Order = "second", clip: Clipping | None = None,
) -> Tensor:  # fmt: skip
    """Adapt θ to a support set in `steps` updates of `rule`: θ⁽ᵀ⁾ (Algorithm 9, lines 6-9).

    Args:
        rule, learner: what proposes each update, and whose loss it is about.
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
    return functools.reduce(lambda _, now: now, path)[0]


def trajectory(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch,
    *, steps: int, order: Order = "second", clip: Clipping | None = None, truncate: int | None = None,
) -> Iterator[tuple[Tensor, State]]:  # fmt: skip
    """Yield (θ⁽ᵗ⁾, state) for t = 0 ... T; arguments, shapes and errors as in `adapt`.

    `truncate`: differentiate so many of the last updates; those before are constants that shift θ.
    """
    require_unroll(steps, order, truncate)
    require_kinds("adapt", rule=(rule, UpdateRule), learner=(learner, BaseLearner))
    require_kinds("adapt", theta=(theta, Tensor), support=(support, Batch))
    if clip is not None:
        require_kinds("adapt", clip=(clip, Clipping))
    if torch.is_inference_mode_enabled():
        raise UsageError("adapt: the inner loop differentiates: use torch.no_grad(), not inference_mode()")
    stacked = support.stacked or theta.ndim == 2
    inputs, targets = (x if stacked else x.unsqueeze(0) for x in (support.inputs, support.targets))
    support = Batch(inputs, targets, stacked=True)
    tasks, n = len(inputs), learner.layout.size
    if theta.shape not in ((n,), (tasks, n)):
        raise UsageError(
            f"adapt: theta must be [n] or [tasks, n] with n = {n} and {tasks} task(s),"
            f" got shape {tuple(theta.shape)}"
        )
    if theta.dtype != learner.dtype:
        raise UsageError(f"adapt: theta is {theta.dtype} and the learner {learner.dtype}; move one with .to")
    track = torch.is_grad_enabled()  # as it is now, not when the path is walked
    path = _unroll(rule, learner, theta.expand(tasks, n), support, steps, order, clip, track, truncate)
    if stacked:
        return path
    return ((theta[0], pytree.tree_map(lambda s: s[0], state)) for theta, state in path)


def per_task(criterion: Callable[..., Tensor], theta: Tensor, batch: Batch, *context: Tensor) -> Tensor:
    """`criterion(θ, batch)` of every task, θ `[tasks, n]`, on a stacked batch: `[tasks]`.

    `context`: of a query set, the learner's: further arguments of `criterion`, stacked too.
    """

    def one(theta: Tensor, inputs: Tensor, targets: Tensor, *context: Tensor) -> Tensor:
        return criterion(theta, Batch(inputs, targets), *context)

    values: Tensor = vmap(one)(theta, batch.inputs, batch.targets, *context)
    return values


def require_unroll(
    steps: int, order: str, truncate: int | None = None, outer_decay: float | None = None
) -> None:
    """UsageError unless there is such an unroll; fields as in `metalearn_core.Settings`."""
    if type(steps) is not int or steps < 0:
        raise UsageError(f"adapt: steps must be an integer >= 0, got {steps!r}")
    if order not in ORDERS:
        raise unknown("order", str(order), ORDERS)
    if truncate is not None and (type(truncate) is not int or truncate < 1):
        raise UsageError(f"meta_gradient: truncate must be an integer >= 1 or None, got {truncate!r}")
    if outer_decay is not None and not 0 < outer_decay <= 1:
        raise UsageError(f"meta_gradient: outer_decay must be in (0, 1] or None, got {outer_decay!r}")


def loss_weights(steps: int, decay: float | None) -> dict[int, float]:
    """What each query loss L(θ⁽ᵗ⁾) weighs in the outer loss: γᵀ⁻ᵗ, t = 1 ... T, in sum 1; None: T alone."""
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
    """Mean query loss over tasks at θ⁽ᵀ⁾, and its gradients for θ⁰ and φ (Algorithm 9, line 11).

    Args:
        rule, learner, steps, order, clip: as in `adapt`.
        theta: θ⁰, `[n]` shared by all tasks or `[tasks, n]`; its gradient has the same shape.
        task: one task or a stacked meta-batch.
        truncate, outer_decay: as in `metalearn_core.Settings`; with a decay the loss is the weighted mean.

    Returns:
        The loss `[]`, the gradient for θ⁰, and `{name: gradient}` with every φ; what the loss does
        not depend on has a gradient of zeros, never None.
    """
    require_unroll(steps, order, truncate, outer_decay)
    task = task if task.stacked else Task.stack([task])
    phi = dict(rule.named_parameters())
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        path = trajectory(
            rule, learner, theta, task.support, steps=steps, order=order, clip=clip, truncate=truncate
        )
        context = learner.context(task)
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
        path = _unroll(rule, learner, start, task.support, steps, order, clip, True, truncate, phi)
        context = learner.context(task)
        of_seed = vmap(lambda theta: per_task(learner.loss, theta, task.query, *context))
        weights = loss_weights(steps, outer_decay)
        losses = _outer_loss(path, weights, lambda theta: of_seed(theta).mean(1))
        return losses.detach(), *_gradients(losses.sum(), theta, phi)


def _gradients(loss: Tensor, theta: Tensor, phi: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """For θ⁰ and every φ; zeros for what the loss does not depend on, and for what is not learned."""
    learned = {name: value for name, value in phi.items() if value.requires_grad}
    anchored = loss + 0 * theta.sum()  # a loss that θ⁰ does not reach still has a gradient, 0
    with own_code("meta_gradient", "the backward pass"):
        found = torch.autograd.grad(anchored, [theta, *learned.values()], allow_unused=True)
    grads = {name: torch.zeros_like(value) for name, value in phi.items()}
    grads |= {name: g for name, g in zip(learned, found[1:], strict=True) if g is not None}
    return found[0], grads


def _over_seeds(
    rule: UpdateRule, phi: Mapping[str, Tensor] | None, function: Callable[..., Any]
) -> Callable[..., Any]:
    """The function; or, given φ of every seed, the function for each: arguments lead with `[seeds]`."""
    if phi is None:
        return function

    def one(phi: Mapping[str, Tensor], *arguments: Any) -> Any:
        with parameters_as(rule, phi):
            return function(*arguments)

    return functools.partial(vmap(one), phi)


def _unroll(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch,
    steps: int, order: Order, clip: Clipping | None, track: bool, truncate: int | None = None,
    phi: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[Tensor, State]]:  # fmt: skip
    """The loop itself, on stacks: θ `[tasks, n]`, each task its own gradient; or `[seeds, tasks, n]`."""
    constant = 0 if truncate is None else steps - truncate
    state = start_state(rule, theta, track=track, phi=phi)
    yield (theta if track else theta.detach()), state
    for step in range(steps):
        kept = track and step >= constant
        moved, state = inner_step(
            rule, learner, theta, state, support, step, order=order, clip=clip, track=kept, phi=phi
        )
        if track and not kept:  # a shift of θ: the new value, with the derivative of the old one
            moved = moved + (theta - theta.detach())
            state = pytree.tree_map(Tensor.detach, state)
        theta = moved
        yield (theta if track else theta.detach()), state


def start_state(
    rule: UpdateRule, theta: Tensor, *, track: bool, phi: Mapping[str, Tensor] | None = None
) -> State:
    """The rule's state at t = 0 on a stack, as in `inner_step`."""

    def start(theta: Tensor) -> State:
        state = rule.init_state(theta)
        _require_tensors(rule, "init_state", "the state", pytree.tree_leaves(state))
        return state

    with torch.set_grad_enabled(track), own_code(f"rule {rule.label}", "init_state"):
        return _over_seeds(rule, phi, start if rule.elementwise else vmap(start))(theta)


def inner_step(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, state: State, support: Batch, step: int,
    *, order: Order, clip: Clipping | None, track: bool, phi: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, State]:  # fmt: skip
    """Step t of every task: θ `[tasks, n]`, or with φ of several seeds `[seeds, tasks, n]`.

    `track`: keep the graph; without it this is evaluation.
    """
    constant = order == "first" or not track
    seeds = functools.partial(_over_seeds, rule, phi)
    with torch.enable_grad():
        theta = theta if theta.requires_grad else theta.detach().requires_grad_()
        losses = seeds(lambda theta: per_task(learner.loss, theta, support))(theta)
        # no two tasks share a row of θ, so the gradient of the sum is each task's own
        total = losses.sum() + 0 * theta.sum()
    seen = losses.detach() if constant else losses
    update = functools.partial(seeds(functools.partial(update_every_task, rule, step)), seen)
    transform = functools.partial(seen_gradient, constant, clip)
    with torch.set_grad_enabled(track):
        return InnerOptimizer(track=track).step(total, theta, transform, update, state)


def seen_gradient(constant: bool, clip: Clipping | None, grad: Tensor) -> Tensor:
    """What a rule is shown of the support gradient: the order is decided here, never in a rule."""
    grad = grad.detach() if constant else grad
    return grad if clip is None else clip(grad)


def update_every_task(
    rule: UpdateRule, step: int, losses: Tensor, theta: Tensor, grad: Tensor, state: State
) -> tuple[Tensor, State]:
    """One step of the rule for every task: `[tasks, n]`."""
    undeclared = Undeclared(rule.label)

    def one(theta: Tensor, grad: Tensor, loss: Tensor, state: State) -> tuple[Tensor, State]:
        shown_loss = loss if rule.uses_loss else undeclared
        signal = Signal(grad, shown_loss, step if rule.uses_step else undeclared)
        answer = rule.update(theta, signal, state)
        _require_contract(rule, (theta, state), answer)
        return answer

    batched: Callable[..., tuple[Tensor, State]] = one if rule.elementwise else vmap(one)
    with own_code(f"rule {rule.label}", "update"):
        return batched(theta, grad, losses, state)


def _require_contract(rule: UpdateRule, given: object, answer: object) -> None:
    """UsageError unless (θ, state) comes back in the structure, shapes and dtypes it was given in."""
    (old, before), (new, after) = pytree.tree_flatten(given), pytree.tree_flatten(answer)
    if before != after:
        raise UsageError(
            f"rule {rule.label}: update must return (theta, state) as it was given them:"
            f" {' '.join(str(before).split())}; it returned {' '.join(str(after).split())}"
        )
    _require_tensors(rule, "update", "θ", new[:1])
    _require_tensors(rule, "update", "the state", new[1:])
    for index, (was, now) in enumerate(zip(old, new, strict=True)):
        if (was.shape, was.dtype) != (now.shape, now.dtype):
            raise UsageError(
                f"rule {rule.label}: update was given {'a state tensor' if index else 'θ'} of shape"
                f" {tuple(was.shape)} and {was.dtype}, and returned {tuple(now.shape)} and {now.dtype}"
            )


def _require_tensors(rule: UpdateRule, method: str, what: str, leaves: Sequence[object]) -> None:
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise UsageError(
                f"rule {rule.label}: {what} that {method} returns must be made of tensors, got {leaf!r:.60}"
            )
