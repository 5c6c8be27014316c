"""Whether a base-learner says of several tasks at once what it says of each of them alone.

Torch's batching rules are right almost everywhere. Where one is not, or where a module keeps something from
one call to the next, nothing but a comparison shows it.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree

from metalearn_core.errors import NOT_BATCHED, TWICE, TrainingWarning, UsageError
from metalearn_core.learner import BaseLearner
from metalearn_core.safeguards.pure_forward import require_pure
from metalearn_core.safeguards.trials import MOST_SHAPES, TASKS, is_traced, streams_kept
from metalearn_core.safeguards.wrong_part import wrong_part
from metalearn_core.task import Batch
from metalearn_core.trees import over_first_axis

ONCE = once_differentiable.__code__
"""What wraps the backward of a function that torch differentiates once, in silence."""

ROUNDING = 1e-12
"""What is taken for rounding in float64, for data and parameters of order one: a solved task has no loss that
its differences could be measured by."""

Answers = list[Tensor]
"""A value, its gradient for θ, and the product of its Hessian and a fixed vector, as far as there are any."""


def check_first_batch(
    learner: BaseLearner, theta: Tensor, batch: Batch, *context: Any,
    what: str = "loss", derivatives: int = 2,
) -> None:  # fmt: skip
    """Compare a few tasks together with each alone, once for each shape of data.

    Nothing is left behind: a copy of the module is called, and random streams are put back. A learner whose
    `check_first_batch` is False is not checked, nor is what torch traces.

    Args:
        learner: the base-learner.
        theta: `[n]`, or `[tasks, n]`.
        batch: a stacked batch.
        context: of a query set, the learner's.
        what: the method that is compared, `"loss"` or `"score"`; or `"support"`, whose loss may be its own.
        derivatives: how many derivatives for θ are compared as well, 0 to 2.

    Raises:
        UsageError: where they differ, or where the module is not a pure function; it names the part.
    """
    if what == "support":
        what, context = ("support_loss", (0,)) if learner.has_support_loss else ("loss", ())
    data = (batch.inputs, batch.targets, *context)
    if not learner.check_first_batch:
        return
    tensors = [x for x in pytree.tree_leaves(data) if isinstance(x, Tensor)]
    shapes = tuple((x.shape[1:], x.dtype) for x in tensors)
    several = min(TASKS, len(tensors[0]))
    kind = (what, derivatives, several, learner.module.training, learner.use_vmap, shapes)
    if kind in learner.checked or len(learner.checked) >= MOST_SHAPES or is_traced(theta, data):
        return
    few = _copied([_first(x, several) for x in data])
    thetas = (theta if theta.ndim == 2 else theta.expand(several, -1))[:several].detach().clone()
    with streams_kept(theta.device), torch.enable_grad():
        # a support set's own loss has the step for its context, which the module is not given
        _require_pure(learner, thetas, few[:2] if what == "support_loss" else few)
        _require_same(learner, what, derivatives, thetas, few)
    learner.checked.add(kind)


def _require_pure(learner: BaseLearner, thetas: Tensor, data: Sequence[Any]) -> None:
    """As `require_pure`, with the first task and the last one, at another θ."""
    calls = [[_task(x, task) for x in data] for task in (0, -1)]
    first, last = ([inputs, *context] for inputs, _, *context in calls)
    module, fresh = learner.module_at(thetas[0]), learner.module_at(1.25 * thetas[-1] + 0.01)
    require_pure(module, fresh, _copied(first), (_copied(last), _copied(last)))


def _look_at_graph(
    learner: BaseLearner, what: str, derivatives: int, theta: Tensor, data: Sequence[Any]
) -> None:
    """UsageError for a function that torch can differentiate once, and takes for constant then.

    A warning where there is no graph at all.
    """
    inputs, targets, *context = _copied(data)
    scout, what = learner.with_module(learner.module_at(theta)), "loss" if what == "score" else what
    try:
        total = getattr(scout, what)(theta.clone().requires_grad_(), Batch(inputs, targets), *context)
    except Exception:  # the run tells it in its own words
        return
    if not total.requires_grad:
        warnings.warn(
            f"{learner.who}: its {what} has no gradient for θ, so every update and every meta-gradient is"
            " made of zeros; look for a detach(), a torch.no_grad() or an argmax in the module and in its"
            " loss",
            TrainingWarning,
            stacklevel=6,
        )
    waiting, seen = [total.grad_fn], set()
    while waiting and derivatives == 2:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
        function = getattr(node, "_forward_cls", None)  # of an own function of torch.autograd
        code = getattr(getattr(function, "backward", None), "__code__", None)
        if function is not None and code is not None and code.co_filename == ONCE.co_filename:
            raise UsageError(f"{learner.who}: {function.__name__} is once_differentiable: {TWICE}")


def _require_same(
    learner: BaseLearner, what: str, derivatives: int, thetas: Tensor, data: Sequence[Any]
) -> None:
    name = type(learner.module).__name__
    found = _differences(learner, what, derivatives, thetas, data)
    if found is None and _take_tasks_in_turn(learner, what, thetas, data):
        found = _differences(learner, what, derivatives, thetas, data)
    if found is None:
        return
    if derivatives and len(thetas[0]):
        _look_at_graph(learner, what, derivatives, thetas[0], [_task(x, 0) for x in data])
    again, batched = found
    if again:
        raise UsageError(
            f"base-learner {name}: asked twice for the {what} of the same task, it gives two answers: it"
            " draws random numbers, or keeps something from one call to the next; make what is random in"
            " __init__, and keep nothing"
        )
    if batched:
        part = wrong_part(learner, thetas, data) or f"the {what}"
        raise UsageError(
            f"base-learner {name}: {part} gives another answer for several tasks at once than for each alone"
            f" (the {what} or its gradient is {100 * batched:.0f} % off): torch batches it wrongly, or it"
            " mixes tasks; set learner.use_vmap = False, which takes the tasks one after the other"
        )


def _take_tasks_in_turn(learner: BaseLearner, what: str, thetas: Tensor, data: Sequence[Any]) -> bool:
    """Give up vmap, and say so, where torch cannot batch a module that works for a task alone: an LSTM."""
    value = _value_of(learner, what, thetas[0])
    try:
        over_first_axis(value)(thetas, *_copied(data))
    except Exception as error:
        if NOT_BATCHED not in str(error):
            return False  # the run tells it in its own words
        operation = re.search(r"aten::\w+", str(error))
    else:
        return False
    with suppress(Exception):  # of one task alone, the run tells it
        twice = [value(thetas[0], *_copied([_task(x, 0) for x in data])) for _ in range(2)]
        if torch.equal(*twice):
            learner.use_vmap = False
    if learner.use_vmap:  # it fails for one task, too, or draws random numbers
        return False
    warnings.warn(
        f"{learner.who}: torch cannot batch {operation[0] if operation else 'it'} over tasks, so they are"
        " taken one after the other; that is right, and slower",
        TrainingWarning,
        stacklevel=6,
    )
    return True


def _differences(
    learner: BaseLearner, what: str, derivatives: int, thetas: Tensor, data: Sequence[Any]
) -> tuple[float, float] | None:
    """How far a second call, and the tasks together, are from each task alone; 0 where that is rounding.

    None where the learner fails: the run, which calls it too, tells that in its own words.
    """
    try:
        found = _compare(learner, what, derivatives, thetas, data)
        tolerance = max(1e-4, torch.finfo(thetas.dtype).eps ** 0.5)
        if max(found) <= tolerance:
            return 0.0, 0.0
    except Exception:  # a stranger's code raises what it likes
        return None
    try:  # rounding can turn a unit of a network on or off: in float64 that is gone
        double = learner.to(thetas.device, torch.float64)
        wide = pytree.tree_map(_doubled, data)
        found = _compare(double, what, derivatives, thetas.double(), wide, rounding=ROUNDING)
        tolerance = 1e-4
    except Exception:
        tolerance = 0.05  # there is no float64 of it
    again, batched = (distance if distance > tolerance else 0.0 for distance in found)
    return again, batched


def _compare(
    learner: BaseLearner, what: str, derivatives: int, thetas: Tensor, data: Sequence[Any],
    rounding: float = 0.0,
) -> tuple[float, float]:  # fmt: skip
    """How far a second call for the first task, and all tasks together, are from each task alone.

    A difference below `rounding`, times the largest number in θ and the data, is none.
    """
    rounding *= _largest((thetas, data))
    value = _value_of(learner, what, thetas[0])

    def alone(task: int) -> Answers:
        own = _copied([_task(x, task) for x in data])
        return _answers(lambda theta: value(theta, *own), thetas[task], derivatives)

    each = [torch.stack(one) for one in zip(*map(alone, range(len(thetas))), strict=True)]
    again = _distance(learner, [x[:1] for x in each], [x.unsqueeze(0) for x in alone(0)], rounding)
    if not learner.use_vmap:
        return again, 0.0
    own = _copied(data)
    together = _answers(lambda thetas: over_first_axis(value)(thetas, *own), thetas, derivatives)
    return again, _distance(learner, each, together, rounding)


def _value_of(learner: BaseLearner, what: str, theta: Tensor) -> Callable[..., Tensor]:
    """The method that is compared, of a copy of the learner, as a function of θ and a task's data."""
    scout = learner.with_module(learner.module_at(theta))

    def value(theta: Tensor, inputs: Any, targets: Any, *context: Any) -> Tensor:
        answer: Tensor = getattr(scout, what)(theta, Batch(inputs, targets), *context)
        return answer

    return value


def _answers(value: Callable[[Tensor], Tensor], theta: Tensor, derivatives: int) -> Answers:
    theta = theta.detach().requires_grad_()
    total = value(theta)
    found = [total.detach()]
    direction = torch.arange(theta.shape[-1], device=theta.device).cos().to(theta.dtype)
    for number in range(derivatives):
        try:
            (grad,) = torch.autograd.grad(
                total.real.sum() + 0 * theta.real.sum(), theta, create_graph=number + 1 < derivatives
            )
        except RuntimeError:
            if number == 0:
                raise
            break  # no second derivative: the run says so if it needs one
        found.append(grad.detach())
        total = grad * direction
    return found


def _largest(data: Any) -> float:
    """The largest magnitude of any finite number in `data`, and at least one."""
    tensors = [x for x in pytree.tree_leaves(data) if isinstance(x, Tensor) and x.is_floating_point()]
    return max([1.0, *(float(x.nan_to_num(0, 0, 0).abs().max()) for x in tensors if x.numel())])


def _distance(learner: BaseLearner, expected: Answers, found: Answers, rounding: float) -> float:
    """The largest difference, relative to what the parameter that it is found at has there."""
    worst, loss = 0.0, float(expected[0].abs().max())
    for want, got in zip(expected, found, strict=False):
        if not want.numel() or not bool(torch.isfinite(want).all()):
            continue
        scale = max(float(want.abs().max()), 1e-3 * loss)
        wanted = learner.layout.unflatten(want) if want.ndim == 2 else {"": want}
        gotten = learner.layout.unflatten(got) if want.ndim == 2 else {"": got}
        for name, part in wanted.items():
            if part.numel() and not torch.equal(part, gotten[name]):
                own = max(float(part.abs().max()), 1e-3 * scale)
                away = float((part - gotten[name]).abs().max())
                if not away <= rounding:
                    worst = max(worst, away / own if own and away == away else math.inf)
    return worst


def _first(data: Any, count: int) -> Any:
    return pytree.tree_map_only(Tensor, lambda x: x[:count], data)


def _task(data: Any, index: int) -> Any:
    return pytree.tree_map_only(Tensor, lambda x: x[index], data)


def _copied(data: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda x: x.detach().clone(), data)


def _doubled(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
