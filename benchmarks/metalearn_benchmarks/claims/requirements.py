"""What a claim requires: a tree of effects, each with the range that it must lie in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs

from metalearn_benchmarks.claims.effect import Effect
from metalearn_benchmarks.claims.evidence import EvidenceFinder
from metalearn_benchmarks.claims.measures import score_effect, spread_growth_effect, wall_time_effect
from metalearn_benchmarks.claims.rules import Rules, TestRule


@attrs.frozen
class Requirements:
    """A set of requirements, of which a number must hold.

    Args:
        needed: how many must hold.
        children: the requirements, each a single effect or again a set.
    """

    needed: int
    children: tuple[Requirements | Requirement, ...]

    def leaves(self) -> Iterator[Requirement]:
        """Yield all single requirements in it, from left to right."""
        for child in self.children:
            yield from [child] if isinstance(child, Requirement) else child.leaves()

    def needs_all(self) -> bool:
        """Whether every single requirement in it must hold."""
        inner = all(child.needs_all() for child in self.children if isinstance(child, Requirements))
        return inner and self.needed == len(self.children)


@attrs.frozen
class Requirement:
    """An effect, and the test with the range that it must lie in."""

    test: TestRule
    effect: Effect


def require_all(children: Sequence[Requirements | Requirement]) -> Requirements:
    """Return requirements that must all hold."""
    return Requirements(len(children), tuple(children))


def requirements_of_test(test: TestRule, rules: Rules, evidence: EvidenceFinder) -> Requirements:
    """The requirements of a test: enough settings, in each every T, at each any or all of the rows.

    Each row must hold against all others. The spread is one effect for all T and all rows together.
    """
    by_setting = []
    for place in range(len(test.settings)):
        by_steps = []
        steps: Sequence[int | None] = test.steps or [None]
        if test.measure == "spread":
            by_setting.append(require_all([Requirement(test, _growth_effect(test, rules, evidence, place))]))
            continue
        for t in steps:
            rows = [
                require_all(
                    [
                        Requirement(test, effect)
                        for effect in _row_effects(test, rules, evidence, place, row, t)
                    ]
                )
                for row in test.of or test.each
            ]
            by_steps.append(Requirements(1 if test.of else len(rows), tuple(rows)))
        by_setting.append(require_all(by_steps))
    return Requirements(test.at_least or len(by_setting), tuple(by_setting))


def _growth_effect(test: TestRule, rules: Rules, evidence: EvidenceFinder, place: int) -> Effect:
    """The growth of the spread with T in one setting."""
    setting = rules.setting[test.settings[place]]
    rows = [[(t, evidence.find(rules.row[name], setting, t)) for t in test.steps] for name in test.each]
    return spread_growth_effect(test, rows)


def _row_effects(
    test: TestRule, rules: Rules, evidence: EvidenceFinder, place: int, name: str, steps: int | None
) -> Iterator[Effect]:
    """The effects of one row in one setting at one T: one for each row that it is compared with."""
    setting, row = rules.setting[test.settings[place]], rules.row[name]
    one = evidence.find(row, setting, steps)
    measured: Callable[..., Effect] = wall_time_effect if test.measure == "seconds" else score_effect
    if test.than_steps is not None:
        yield measured(test, one, evidence.find(row, setting, test.than_steps))
    elif test.than_settings:
        other = rules.setting[test.than_settings[place]]
        yield measured(test, one, evidence.find(row, other, steps), same_tasks=False)
    for rival in test.against:
        yield measured(test, one, evidence.find(rules.row[rival], setting, steps))
