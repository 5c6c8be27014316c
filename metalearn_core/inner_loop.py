"""The inner loop: the updates of a rule on a support set (Algorithm 9, lines 6-9)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from metalearn_core.errors import RuleError, UsageError, require_count, require_kinds, unknown, user_code
from metalearn_core.learner import BaseLearner
from metalearn_core.optimizers.differentiable import InnerOptimizer
from metalearn_core.rule import State, UpdateRule, parameters_as, require_contract, require_tensors
from metalearn_core.safeguards.losses import one_number
from metalearn_core.safeguards.same_alone import check_first_batch
from metalearn_core.safeguards.stacked_rule import check_first_update
from metalearn_core.safeguards.writes import nothing_written
from metalearn_core.settings import ORDERS, Clipping, Order
from metalearn_core.signal import Noise, Signal, SupportSet, UndeclaredField, noise_keys
from metalearn_core.task import Batch
from metalearn_core.trees import over_first_axis, shapes_of


def adapt(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch,
    *, steps: int, order: Order = "second", clip: Clipping | None = None,
) -> Tensor:  # fmt: skip
    """Adapt θ to a support set in `steps` updates of a rule (Algorithm 9, lines 6-9).

    Args:
        rule: proposes each update.
        learner: the base-learner whose support loss is lowered.
        theta: `[n]`, or one start for each task of a meta-batch, `[tasks, n]`.
        support: the support set of one task or of a stacked `Task`; beside θ `[tasks, n]` it is read as
            stacked.
        steps: T, the number of updates, at least 0.
        order: `"second"` differentiates through the support gradients; `"first"` takes them, and the
            support loss, for constants.
        clip: bounds the support gradient of each task before the rule sees it.

    Returns:
        θ⁽ᵀ⁾, `[n]`, or `[tasks, n]` for a meta-batch. Under `torch.no_grad()` no graph is kept.

    Raises:
        UsageError: for arguments that do not fit, and for a rule that breaks its contract.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalearn_core import BaseLearner, Batch, adapt, make_rule
        >>> learner = BaseLearner(nn.Linear(1, 1, bias=False), nn.functional.mse_loss)
        >>> rule = make_rule("gradient-descent", learner.layout, inner_lr=0.25)
        >>> support = Batch(torch.ones(1, 1), torch.ones(1, 1))  # the loss is (θ − 1)²
        >>> adapt(rule, learner, torch.zeros(1), support, steps=2).tolist()
        [0.75]
    """
    path = trajectory(rule, learner, theta, support, steps=steps, order=order, clip=clip)
    return functools.reduce(lambda _, now: now, path)[0]


def trajectory(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch,
    *, steps: int, order: Order = "second", clip: Clipping | None = None, truncate: int | None = None,
) -> Iterator[tuple[Tensor, State]]:  # fmt: skip
    """Yield θ⁽ᵗ⁾ and the state of the rule for t = 0 ... T (Algorithm 9, lines 6-9).

    Args:
        rule: proposes each update.
        learner: the base-learner whose support loss is lowered.
        theta: `[n]`, or one start for each task, `[tasks, n]`.
        support: the support set, as in `adapt`.
        steps: T, at least 0.
        order: as in `adapt`.
        clip: as in `adapt`.
        truncate: differentiate this many of the last updates; those before are constants that shift θ and
            the state. None differentiates all of them.

    Yields:
        θ⁽ᵗ⁾, `[n]` or `[tasks, n]`, and the state, which leads with `[tasks]` where θ does.

    Raises:
        UsageError: as `adapt` does.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalearn_core import BaseLearner, Batch, make_rule, trajectory
        >>> learner = BaseLearner(nn.Linear(1, 1, bias=False), nn.functional.mse_loss)
        >>> rule = make_rule("gradient-descent", learner.layout, inner_lr=0.25)
        >>> support = Batch(torch.ones(1, 1), torch.ones(1, 1))  # the loss is (θ − 1)²
        >>> path = trajectory(rule, learner, torch.zeros(1), support, steps=3)
        >>> [theta.item() for theta, state in path]
        [0.0, 0.5, 0.75, 0.875]
    """
    require_unroll(steps, order, truncate)
    require_kinds("adapt", rule=(rule, UpdateRule), learner=(learner, BaseLearner))
    require_kinds("adapt", theta=(theta, Tensor), support=(support, Batch))
    require_kinds("adapt", clip=(clip, (Clipping, NoneType)))
    if torch.is_inference_mode_enabled():
        raise UsageError("adapt: the inner loop differentiates: use torch.no_grad(), not inference_mode()")
    stacked = support.stacked or theta.ndim == 2
    tensors = [x if stacked else x.unsqueeze(0) for x in support.tensors]
    support = support.like(tensors, stacked=True)
    tasks, n = len(tensors[0]), learner.layout.size
    if theta.shape not in ((n,), (tasks, n)):
        raise UsageError(
            f"adapt: theta must be [n] or [tasks, n] with n = {n} and {tasks} task(s),"
            f" got shape {tuple(theta.shape)}"
        )
    if theta.dtype != learner.dtype:
        raise UsageError(f"adapt: theta is {theta.dtype} and the learner {learner.dtype}; move one with .to")
    track = torch.is_grad_enabled()  # as it is now, not when the path is walked
    # a view of a leaf is a leaf where no graph is kept, and would share one gradient among all tasks
    theta = theta if track else theta.detach()
    check_first_batch(
        learner, theta, support, what="support", derivatives=2 if track and order == "second" else 1
    )
    check_first_update(rule, theta, tasks, steps)
    path = unroll(rule, learner, theta.expand(tasks, n), support, steps, order, clip, track, truncate)
    if stacked:
        return path
    return ((theta[0], pytree.tree_map(lambda s: s[0], state)) for theta, state in path)


def per_task(criterion: Callable[..., Tensor], theta: Tensor, batch: Batch, *context: Any) -> Tensor:
    """`criterion(θ, batch)` of every task, θ `[tasks, n]`, on a stacked batch: `[tasks]`.

    `context`: further arguments of `criterion`; the tensors in it are stacked too.
    """
    tensors = batch.tensors

    def one(theta: Tensor, own: Sequence[Tensor], *context: Any) -> Tensor:
        with user_code(whose, what):
            return one_number(whose, what, criterion(theta, batch.like(own, stacked=False), *context))

    learner = getattr(criterion, "__self__", None)
    whose, what = getattr(learner, "who", "base-learner"), getattr(criterion, "__name__", "loss")
    if any(x.device != theta.device for x in tensors):
        where = " and ".join(map(str, dict.fromkeys(x.device for x in tensors)))
        raise UsageError(f"adapt: theta is on {theta.device} and the examples on {where}; move them with .to")
    values: Tensor
    if not getattr(learner, "use_vmap", True):
        values = over_first_axis(one, at_once=False)(theta, tensors, *context)
        return values
    watched = batch.named_tensors
    with nothing_written(whose, parameters=theta, **watched):
        try:
            values = over_first_axis(one)(theta, tensors, *context)
        except RuleError:
            over_first_axis(one, at_once=False)(theta, tensors, *context)  # torch says it better of a task
            raise  # nothing is wrong with any of them: the batching is
    return values


def require_unroll(
    steps: int, order: str, truncate: int | None = None, outer_decay: float | None = None
) -> None:
    """UsageError unless there is such an unroll; fields as in `metalearn_core.Settings`."""
    require_count("adapt", "steps", steps)
    if not isinstance(order, str) or order not in ORDERS:
        raise unknown("order", str(order), ORDERS)
    if truncate is not None and (type(truncate) is not int or truncate < 1):
        raise UsageError(f"meta_gradient: truncate must be an integer >= 1 or None, got {truncate!r:.60}")
    number = type(outer_decay) in (int, float)
    if outer_decay is not None and not (number and 0 < outer_decay <= 1):
        raise UsageError(f"meta_gradient: outer_decay must be in (0, 1] or None, got {outer_decay!r:.60}")


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


def unroll(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch,
    steps: int, order: Order, clip: Clipping | None, track: bool, truncate: int | None = None,
    phi: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[Tensor, State]]:  # fmt: skip
    """The loop itself, on stacks: θ `[tasks, n]`, each task its own gradient; or `[seeds, tasks, n]`."""
    constant = 0 if truncate is None else steps - truncate
    beside = Beside(learner, support, steps, order == "first" or not track, clip)
    theta = start_every_task(rule, theta, beside, track=track, phi=phi)
    state = start_state(rule, theta, track=track, phi=phi)
    yield (theta if track else theta.detach()), state
    for step in range(steps):
        kept = track and step >= constant
        moved, after = inner_step(
            rule, learner, theta, state, support, step,
            steps=steps, order=order, clip=clip, track=kept, phi=phi,
        )  # fmt: skip
        if track and not kept:
            moved, after = shifted(theta, moved), pytree.tree_map(shifted, state, after)
        theta, state = moved, after
        yield (theta if track else theta.detach()), state


def shifted(old: Tensor, new: Tensor) -> Tensor:
    """The old tensor moved by a constant: the new value, with the derivative of the old one."""
    return new.detach() + (old - old.detach()) if old.requires_grad else new.detach()


@attrs.frozen(eq=False)
class Beside:
    """What rules may be shown beside gradient and loss: the support sets, and how many steps there are.

    Args:
        learner: whose losses and predictions they are.
        support: of every task, stacked.
        steps: T.
        constant: whether gradients are shown as constants.
        clip: bounds them, task by task.
    """

    learner: BaseLearner
    support: Batch
    steps: int
    constant: bool
    clip: Clipping | None

    def of_task(self, tensors: Sequence[Tensor], step: int = 0) -> SupportSet:
        """The support set of one task, of which these are the tensors, in step t."""
        batch = self.support.like(tensors, stacked=False)
        return SupportSet(
            batch,
            lambda theta: self.learner.support_loss(theta, batch, step),
            lambda theta: self.learner.predict(theta, batch.inputs),
            functools.partial(gradient_for_rule, self.constant, self.clip),
            self.constant,
        )

    def over_tasks(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function for every task, at once or, where torch cannot batch the learner, one by one."""
        return over_first_axis(function, at_once=self.learner.use_vmap)


def start_every_task(
    rule: UpdateRule, theta: Tensor, beside: Beside,
    *, track: bool, phi: Mapping[str, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """θ⁽⁰⁾ of every task, of the shape of θ, as in `inner_step`; `track`: keep the graph."""
    if not rule.has_start:
        return theta
    tensors, who = beside.support.tensors, f"rule {rule.label}"

    def one(theta: Tensor, *own: Tensor) -> Tensor:
        begun = rule.start(theta, beside.of_task(own))
        if not isinstance(begun, Tensor) or (begun.shape, begun.dtype) != (theta.shape, theta.dtype):
            raise UsageError(
                f"{who}: start must return θ as it was given it, {shapes_of(theta)}, got {shapes_of(begun)}"
            )
        return begun

    with (
        torch.set_grad_enabled(track), user_code(who, "start"),
        nothing_written(who, theta=theta, **beside.support.named_tensors),
    ):  # fmt: skip
        found: Tensor = _over_seeds(rule, phi, lambda theta: beside.over_tasks(one)(theta, *tensors))(theta)
    return found


def start_state(
    rule: UpdateRule, theta: Tensor, *, track: bool, phi: Mapping[str, Tensor] | None = None
) -> State:
    """The rule's state at t = 0 on a stack, as in `inner_step`."""

    def start(theta: Tensor) -> State:
        state = rule.init_state(theta)
        require_tensors(rule, "init_state", "the state", pytree.tree_leaves(state))
        return state

    with torch.set_grad_enabled(track), user_code(f"rule {rule.label}", "init_state"):
        return _over_seeds(rule, phi, start if rule.elementwise else vmap(start))(theta)


def inner_step(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, state: State, support: Batch, step: int,
    *, steps: int, order: Order, clip: Clipping | None, track: bool,
    phi: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, State]:  # fmt: skip
    """Step t of every task: θ `[tasks, n]`, or with φ of several seeds `[seeds, tasks, n]`.

    `track`: keep the graph; without it this is evaluation.
    """
    constant = order == "first" or not track
    seeds = functools.partial(_over_seeds, rule, phi)
    with torch.enable_grad():
        theta = theta if theta.requires_grad else theta.detach().requires_grad_()
        if learner.has_support_loss:
            losses = seeds(lambda theta: per_task(learner.support_loss, theta, support, step))(theta)
        else:
            losses = seeds(lambda theta: per_task(learner.loss, theta, support))(theta)
        # no two tasks share a row of θ, so the gradient of the sum is each task's own
        total = losses.sum() + 0 * theta.sum().real
    seen = losses.detach() if constant else losses
    beside = Beside(learner, support, steps, constant, clip)
    every = functools.partial(update_every_task, rule, step, beside=beside)
    update = functools.partial(seeds(every), seen)
    transform = functools.partial(gradient_for_rule, constant, clip)
    with torch.set_grad_enabled(track), user_code(learner.who, "the support gradient"):
        return InnerOptimizer(track=track).step(total, theta, transform, update, state)


def gradient_for_rule(constant: bool, clip: Clipping | None, grad: Tensor) -> Tensor:
    """What a rule is shown of the support gradient: the order is decided here, never in a rule."""
    grad = grad.detach() if constant else grad
    return grad if clip is None else clip(grad)


def update_every_task(
    rule: UpdateRule, step: int, losses: Tensor, theta: Tensor, grad: Tensor, state: State,
    beside: Beside | None = None,
) -> tuple[Tensor, State]:  # fmt: skip
    """One step of the rule for every task: `[tasks, n]`; `beside`: None where there are no tasks."""
    undeclared = UndeclaredField(rule.label)
    shown = beside if rule.uses_support else None
    tensors = shown.support.tensors if shown else []
    noisy = beside is not None and rule.uses_noise
    keys = [noise_keys(beside.support, rule.seed_of_noise, step)] if beside and noisy else []
    if rule.uses_support and rule.elementwise:
        raise UsageError(f"rule {rule.label}: with uses_support it is for one task: set elementwise = False")
    numbers = (step, beside.steps if beside else None) if rule.uses_step else (undeclared, undeclared)

    def one(theta: Tensor, grad: Tensor, loss: Tensor, state: State, *own: Tensor) -> tuple[Tensor, State]:
        noise = Noise(own[0], theta) if noisy else None if rule.uses_noise else undeclared
        support: Any = None if rule.uses_support else undeclared
        if shown:
            support = shown.of_task(own[len(keys) :], step)
        shown_loss = loss if rule.uses_loss else undeclared
        signal = Signal(grad, shown_loss, numbers[0], support, numbers[1], noise)
        answer = rule.update(theta, signal, state)
        require_contract(rule, (theta, state), answer)
        return answer

    batched: Callable[..., tuple[Tensor, State]] = one if rule.elementwise else vmap(one)
    if shown:
        batched = shown.over_tasks(one)
    leaves = {f"state {i}": leaf for i, leaf in enumerate(pytree.tree_leaves(state))}
    if shown:
        leaves |= shown.support.named_tensors
    who = f"rule {rule.label}"
    with nothing_written(who, theta=theta, grad=grad, **leaves), user_code(who, "update"):
        return batched(theta, grad, losses, state, *keys, *tensors)
