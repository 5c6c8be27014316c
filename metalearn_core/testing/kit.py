"""The conformance kit: what a rule is checked against, and what came of it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import RuleError, UsageError, describe_error, remedy
from metalearn_core.learner import BaseLearner
from metalearn_core.task import Task
from metalearn_core.testing.arguments import require_laws, require_maker
from metalearn_core.testing.laws import LAWS, Law, MakeRule
from metalearn_core.testing.laws.problems import Given, is_given, layout, looking_at, make

KIT_VERSION = 4
"""Rises when a law is added or becomes stricter."""


Tier: TypeAlias = Literal["basic", "optional", "slow"]
"""Basic: of every rule. Optional: of a capability that a rule may declare. Slow: it trains or compiles."""
OF_A_CAPABILITY = frozenset({"coordinatewise", "elementwise", "starts-as-descent"})


@attrs.frozen
class Result:
    """What came of one law for one rule; `message` says what to change, or why it was skipped."""

    law: str
    tier: Tier
    status: Literal["passed", "failed", "skipped", "expected"]
    message: str = ""


def check_update_rule(
    make_rule: str | MakeRule, *, skip: Collection[str] = (),
    expected_failures: Mapping[str, str] | None = None, slow: bool = False,
    problem: object = None,
) -> list[Result]:  # fmt: skip
    """Check a rule against every law.

    Args:
        make_rule: the name of an installed rule, a rule's class, or any `make_rule(layout) -> UpdateRule`.
        skip: names of laws that are not looked at.
        expected_failures: laws that the rule is known to break, each with the reason. Such a failure is
            `"expected"`, and a law of these that holds after all is `"failed"`.
        slow: the laws of `SLOW_LAWS` too, which train, compile and resume.
        problem: what the rule is looked at on, where it needs a base-learner of its own: a `Problem`, a tuple
            of the learner, θ⁰ `[n]` and a stacked meta-batch, or a function that returns one. None looks at
            it on a small network with regression.

    Returns:
        One result for each law, in the order of `LAWS`; whatever a law raised is in its message.

    Raises:
        UsageError: for a name in `skip` or `expected_failures` that is no law's, for one without a reason,
            for the name of a rule that is not installed, and for what makes no rule.
    """
    laws, expected = all_laws(slow), expected_failures or {}
    require_laws(skip, expected, laws)
    results, make = [], maker(make_rule)
    with looking_at(_in_float64(problem)):
        for name, law in laws.items():
            asked = Result(name, tier(name), "skipped", "as asked")
            result = asked if name in skip else _result(name, law, make)
            results.append(_expected(result, expected[name]) if name in expected else result)
    return results


def _in_float64(problem: Any) -> Given | None:
    """What a rule is looked at on, as the laws want it; UsageError for what is no such thing."""
    if problem is None:
        return None
    made = problem() if callable(problem) else problem
    if not isinstance(made, tuple):
        made = tuple(getattr(made, name, None) for name in ("learner", "theta", "task"))
    if len(made) != 3 or not _fits(*made):
        raise UsageError(
            "problem: expected a Problem, a tuple (learner, theta, task) or a function that returns one, with"
            f" theta [n] and a stacked task; got a {type(problem).__name__}"
        )
    learner, theta, task = made
    return learner.to("cpu", torch.float64), theta.detach().double(), task.to("cpu", torch.float64)


def _fits(learner: object, theta: object, task: object) -> bool:
    if not (isinstance(learner, BaseLearner) and isinstance(theta, Tensor) and isinstance(task, Task)):
        return False
    return theta.shape == (learner.layout.size,) and task.stacked


def maker(rule: str | MakeRule) -> MakeRule:
    """What makes the rule; UsageError for a name that none is installed under, and for what makes none."""
    require_maker("make_rule", rule)
    if not isinstance(rule, str):
        return rule
    from metalearn_core.registry import make_rule, rules

    return functools.partial(make_rule, rules()[rule].name)


def all_laws(slow: bool = False) -> dict[str, Law]:
    """The laws by their names, the slow ones last, if at all."""
    if not slow:
        return LAWS
    from metalearn_core.testing.laws.slow import SLOW_LAWS

    return LAWS | SLOW_LAWS


def tier(law: str) -> Tier:
    """Which tier a law is of."""
    if law in OF_A_CAPABILITY:
        return "optional"
    return "basic" if law in LAWS else "slow"


def _expected(result: Result, reason: str) -> Result:
    """A failure is as expected, a law that holds is not; one that was not looked at stays skipped."""
    if result.status == "failed":
        return attrs.evolve(result, status="expected", message=f"{reason}: {result.message}")
    if result.status == "skipped":
        return result
    return attrs.evolve(
        result,
        status="failed",
        message=f"it holds, though it is expected to fail ({reason}); expect it no longer",
    )


def _wants_a_problem(error: Exception, make_rule: MakeRule) -> str:
    """What to do about a rule that fails on the kit's own examples because it is made for others."""
    own = isinstance(error, RuleError) and error.__cause__ and not remedy(error.__cause__)
    with suppress(Exception):
        rule = make(make_rule, layout())
        if own and not is_given() and (rule.uses_support or rule.has_start):
            return (
                "; it was looked at with inputs [n, 3] and targets [n, 1]: bring those that it is made for as"
                " problem=, in a terminal --problem MODULE:NAME"
            )
    return ""


def _result(name: str, law: Law, make_rule: MakeRule) -> Result:
    try:
        reason = law(make_rule)
    except AssertionError as error:
        return Result(name, tier(name), "failed", str(error))
    except Exception as error:  # whatever it is, it is the rule's
        return Result(name, tier(name), "failed", describe_error(error) + _wants_a_problem(error, make_rule))
    return Result(name, tier(name), "skipped" if reason else "passed", reason or "")
