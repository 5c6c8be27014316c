"""The laws of outer gradients: what a function must keep to take the place of `meta_gradient`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metalearn_core.errors import RuleError, UsageError, describe_error
from metalearn_core.outer_gradient import KEYS, AnswerError, MetaGradient, OuterGradient
from metalearn_core.rule import State, UpdateRule
from metalearn_core.signal import Signal
from metalearn_core.testing.problems import Architecture, Problem
from metalearn_core.training.parameters import ParameterLayout

if TYPE_CHECKING:
    from metalearn_core.testing.kit import Result

Answer = Callable[..., Any]
"""Asks the outer gradient about a problem."""


class Descent(UpdateRule):
    """θ ← θ − 0.1 ∇L, with nothing to learn: every outer gradient takes it, or says what it wants."""

    elementwise = True
    inner_lr: Tensor

    def __init__(self, layout: ParameterLayout) -> None:
        super().__init__()
        self.register_buffer("inner_lr", torch.tensor(0.1))

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        return theta - self.inner_lr * signal.grad, state


class LearnedDescent(Descent):
    """The same with a rate that is learned, a φ: an outer gradient gives one for it, or refuses the rule."""

    def __init__(self, layout: ParameterLayout) -> None:
        UpdateRule.__init__(self)
        self.inner_lr = nn.Parameter(torch.tensor(0.1))


def check_meta_gradient(
    gradient: str | MetaGradient, *, rule: Callable[[ParameterLayout], UpdateRule] = Descent, **options: Any
) -> list[Result]:
    """Check an outer gradient against every law, in float64 on a small problem.

    Args:
        gradient: the name of an installed outer gradient, or a function as `meta_gradient` is one.
        rule: makes the rule that it is asked about; by default gradient descent with nothing to learn.
        options: those of the outer gradient, by keyword.

    Returns:
        One result for each law, in the order of `META_GRADIENT_LAWS`; what failed says what to change.

    Raises:
        UsageError: for a name that is not installed, and for an option that it does not take.

    Example:
        >>> from metalearn_core import meta_gradient
        >>> from metalearn_core.testing import check_meta_gradient
        >>> {result.status for result in check_meta_gradient(meta_gradient)}
        {'passed'}
    """
    from metalearn_core.registry import make_meta_gradient
    from metalearn_core.testing.kit import Result

    made = make_meta_gradient(gradient, **options) if isinstance(gradient, str) else gradient
    if options and not isinstance(gradient, str):
        made = functools.partial(gradient, **options)
    outer = OuterGradient.of(made) or OuterGradient(made, "meta_gradient")
    results = []
    for name, law in META_GRADIENT_LAWS.items():
        problem = Problem(Architecture((1, 4, 1)), tasks=3, steps=2)
        ask = functools.partial(_ask, outer, rule(problem.learner.layout).double(), problem)
        try:
            law(ask, problem)
            results.append(Result(name, "basic", "passed"))
        except Exception as error:  # whatever it is, it is the outer gradient's
            told = str(error) if isinstance(error, AssertionError) else describe_error(error)
            results.append(Result(name, "basic", "failed", told))
    return results


def _ask(
    outer: OuterGradient, rule: UpdateRule, problem: Problem,
    theta: Tensor | None = None, first: int = 0, last: int = 3, double: bool = True, learned: bool = False,
) -> list[Tensor]:  # fmt: skip
    """Loss, gradient for θ⁰, and that for each φ, of the tasks from `first` to `last`."""
    rule = LearnedDescent(problem.learner.layout) if learned else rule
    dtype = torch.float64 if double else torch.float32
    keys = {KEYS: torch.tensor([11, 12, 13])[first:last]} if outer.keyed else {}
    start = (problem.theta if theta is None else theta).to(dtype)
    task, learner = problem.task[first:last].to("cpu", dtype), problem.learner.to("cpu", dtype)
    settings: dict[str, Any] = {"steps": problem.steps, "order": "second"}
    settings |= dict.fromkeys(("clip", "truncate", "outer_decay"))  # all that the outer loop gives
    loss, grad, of_phi = outer(rule.to(dtype=dtype), learner, start, task, **settings, **keys)
    return [loss, grad, *of_phi.values()]


def _close(ours: list[Tensor], theirs: list[Tensor], message: str) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10), message


def answers(ask: Answer, problem: Problem) -> None:
    """It answers as `meta_gradient`: a loss, a gradient in the shape of θ⁰, one for each φ; all finite."""
    finite = all(bool(x.isfinite().all()) for x in ask())
    assert finite, "the answer has a NaN or an infinity on an ordinary problem"


def every_phi(ask: Answer, problem: Problem) -> None:
    """A rule with a φ has a gradient for it, of zeros where there is none; or it is refused in one line."""
    try:
        answer = ask(learned=True)
    except (RuleError, AnswerError):
        raise
    except UsageError:
        return  # Reptile's says that there must be nothing to learn
    assert bool(answer[-1].isfinite()), "the gradient for a φ has a NaN or an infinity"


def repeats(ask: Answer, problem: Problem) -> None:
    """The same arguments give the same bits, and no global random stream is moved."""
    before = torch.get_rng_state()
    once, again = ask(), ask()
    assert all(map(torch.equal, once, again)), "asked twice, it gives two answers: draw by `keys` alone"
    moved = not torch.equal(before, torch.get_rng_state())
    assert not moved, "it draws from torch's global generator: draw by `keys`, with keyed_normal"


def tasks_alone(ask: Answer, problem: Problem) -> None:
    """Tasks together are the mean of each alone."""
    alone = [ask(first=i, last=i + 1) for i in range(3)]
    means = [torch.stack(column).mean(0) for column in zip(*alone, strict=True)]
    _close(ask(), means, "several tasks together are not the mean over each task alone: it mixes tasks")


def own_starts(ask: Answer, problem: Problem) -> None:
    """For θ⁰ `[tasks, n]`, each row has its task's part; their sum is the gradient of a shared θ⁰."""
    shared, rows = ask(), ask(theta=problem.theta.expand(3, -1).clone())
    rows[1] = rows[1].sum(0)
    _close(
        rows, shared, "for θ⁰ of each task, [tasks, n], the rows do not sum to the gradient of a shared θ⁰"
    )


def writes_nothing(ask: Answer, problem: Problem) -> None:
    """θ⁰ and the tasks are as they were, and the next answer is the same."""
    held = [problem.theta, *problem.task.tensors]
    before, once = [x.clone() for x in held], ask()
    assert all(map(torch.equal, before, held)), "it writes to θ⁰ or to the tasks"
    assert all(map(torch.equal, once, ask())), "it writes to the rule or to the base-learner"


def follows_dtype(ask: Answer, problem: Problem) -> None:
    """In float32 everything that it answers is float32."""
    kinds = {x.dtype for x in pytree.tree_leaves(ask(double=False))}
    assert kinds == {torch.float32}, f"in float32 it answers in {kinds}: make constants like theta"


META_GRADIENT_LAWS: dict[str, Callable[[Answer, Problem], None]] = {
    "answers": answers,
    "every-phi": every_phi,
    "repeats": repeats,
    "tasks-alone": tasks_alone,
    "own-starts": own_starts,
    "writes-nothing": writes_nothing,
    "follows-dtype": follows_dtype,
}
"""The laws of outer gradients by name; each raises AssertionError with what to change."""
