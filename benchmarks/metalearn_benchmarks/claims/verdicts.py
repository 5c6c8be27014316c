"""The paper's claims against records: holds, does not hold, or too little evidence.

Every test comes down to effects with intervals and a region: it holds where the interval lies within the
region, does not hold where it lies outside, and otherwise the records do not say. Where all of several
parts must hold, each may be judged at the claim's confidence (if the claim is false, one part is false, and
that one passes rarely); where one part out of many would refute it, or bear it out, the parts share the
error among them (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

import attrs

from metalearn_benchmarks.claims.effects import Effect, of_scores, of_seconds, of_spread
from metalearn_benchmarks.claims.evidence import Evidences
from metalearn_benchmarks.claims.rules import ClaimRule, Rules, TestRule
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.estimate import Estimate


class Outcome(StrEnum):
    """What records say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "too little evidence"


HOLDS, FAILS, OPEN = Outcome.HOLDS, Outcome.FAILS, Outcome.OPEN


@attrs.frozen
class Part:
    """One effect of a claim, against its region.

    Args:
        estimate: with the interval at the claim's confidence; None where there are no records.
        shared: the same with the interval at a confidence that all parts share.
        lacks: why this part decides nothing, whatever the interval; a line each.
    """

    label: str
    asked: str
    least: float
    most: float
    outcome: Outcome
    estimate: Estimate | None
    shared: Estimate | None
    seeds: int
    tasks: int
    lacks: tuple[str, ...]


@attrs.frozen
class Verdict:
    """What the records say of a claim, and what would settle it where they do not say enough."""

    name: str
    says: str
    source: str
    why: str
    outcome: Outcome
    confidence: float
    parts: tuple[Part, ...]
    settle: tuple[str, ...]

    @property
    def telling(self) -> Part | None:
        """Of the parts that came out as the claim did, the one furthest from holding."""

        def rank(part: Part) -> tuple[bool, bool, float]:
            return part.outcome != self.outcome, part.estimate is None, _room(part)

        return min(self.parts, key=rank, default=None)


@attrs.frozen
class Requirements:
    """Of its parts so many must hold."""

    needed: int
    children: tuple[Requirements | Requirement, ...]

    def leaves(self) -> Iterator[Requirement]:
        """All effects of it, from left to right."""
        for child in self.children:
            yield from [child] if isinstance(child, Requirement) else child.leaves()

    def takes_all(self) -> bool:
        """Whether every leaf of it must hold."""
        below = all(child.takes_all() for child in self.children if isinstance(child, Requirements))
        return below and self.needed == len(self.children)


@attrs.frozen
class Requirement:
    """An effect and the region that it is asked to lie in."""

    test: TestRule
    effect: Effect


def decide_all(rules: Rules, records: Sequence[Record]) -> list[Verdict]:
    """Every claim, in the order of the rules."""
    evidences = Evidences(records)
    return [decide(name, claim, rules, evidences) for name, claim in rules.claim.items()]


def decide(name: str, claim: ClaimRule, rules: Rules, evidences: Evidences) -> Verdict:
    """One claim."""
    if claim.map:
        return _by_the_map(name, claim, rules.confidence)
    tree = _all([_of_test(test, rules, evidences) for test in claim.test])
    leaves = list(tree.leaves())
    shared = 1 - (1 - rules.confidence) / len(leaves)
    parts = [_judged(leaf, rules.confidence, shared, tree.takes_all()) for leaf in leaves]
    outcome = _counted(tree, iter(parts))
    settle: list[str] = []
    if outcome == OPEN:
        for leaf, part in zip(leaves, parts, strict=True):
            confidence = rules.confidence if tree.takes_all() else shared
            settle += _what_would_settle(leaf, part, confidence)
    unique = tuple(dict.fromkeys(settle))
    return Verdict(
        name, claim.says, claim.source, claim.why, outcome, rules.confidence, tuple(parts), unique
    )  # fmt: skip


def _by_the_map(name: str, claim: ClaimRule, confidence: float) -> Verdict:
    """A theorem holds where the map of rules has it, which properties check on drawn examples."""
    from metalearn_benchmarks.theory import shipped_map

    relation = shipped_map().relation(claim.map["special"], claim.map["general"])
    outcomes = {"exact": HOLDS, "limit": HOLDS, "same": HOLDS, "not": FAILS}
    part = Part(
        label=f"{claim.map['general']} contains {claim.map['special']}: {relation.verdict}",
        asked="exact or in the limit", least=-math.inf, most=math.inf,
        outcome=outcomes.get(relation.verdict, OPEN),
        estimate=None, shared=None, seeds=0, tasks=0, lacks=(),
    )  # fmt: skip
    check = f"`metalearn map {claim.map['general']} --check 200` checks it here"
    return Verdict(
        name, claim.says, claim.source, claim.why, part.outcome, confidence, (part,),
        (f"held by {claim.held_by}; {check}",),
    )  # fmt: skip


def _all(children: Sequence[Requirements | Requirement]) -> Requirements:
    return Requirements(len(children), tuple(children))


def _of_test(test: TestRule, rules: Rules, evidences: Evidences) -> Requirements:
    """So many settings, in each all T, in each any or all of the rows, each against all others.

    Spread is of all T and all rows together.
    """
    of_settings = []
    for place in range(len(test.settings)):
        of_steps = []
        steps: Sequence[int | None] = test.steps or [None]
        if test.measure == "spread":
            of_settings.append(_all([Requirement(test, _growth(test, rules, evidences, place))]))
            continue
        for t in steps:
            rows = [
                _all(
                    [Requirement(test, effect) for effect in _effects(test, rules, evidences, place, row, t)]
                )
                for row in test.of or test.each
            ]
            of_steps.append(Requirements(1 if test.of else len(rows), tuple(rows)))
        of_settings.append(_all(of_steps))
    return Requirements(test.at_least or len(of_settings), tuple(of_settings))


def _growth(test: TestRule, rules: Rules, evidences: Evidences, place: int) -> Effect:
    """How spread grows with T in one setting."""
    setting = rules.setting[test.settings[place]]
    rows = [[(t, evidences.of(rules.row[name], setting, t)) for t in test.steps] for name in test.each]
    return of_spread(test, rows)


def _effects(
    test: TestRule, rules: Rules, evidences: Evidences, place: int, name: str, steps: int | None
) -> Iterator[Effect]:
    """The effects of one row in one setting at one T: one for each row that it is held against."""
    setting, row = rules.setting[test.settings[place]], rules.row[name]
    one = evidences.of(row, setting, steps)
    measured: Callable[..., Effect] = of_seconds if test.measure == "seconds" else of_scores
    if test.than_steps is not None:
        yield measured(test, one, evidences.of(row, setting, test.than_steps))
    elif test.than_settings:
        other = rules.setting[test.than_settings[place]]
        yield measured(test, one, evidences.of(row, other, steps), same_tasks=False)
    for rival in test.against:
        yield measured(test, one, evidences.of(rules.row[rival], setting, steps))


def _judged(leaf: Requirement, plain: float, shared: float, takes_all: bool) -> Part:
    effect, test = leaf.effect, leaf.test
    own, common = effect.estimate(plain), effect.estimate(shared)
    outcome = OPEN
    if own is not None and common is not None and not effect.lacks:
        bearing = own if takes_all else common
        if test.least < bearing.low and bearing.high < test.most:
            outcome = HOLDS
        elif common.high <= test.least or common.low >= test.most:
            outcome = FAILS
    return Part(
        effect.label, test.asked, test.least, test.most, outcome, own, common,
        effect.seeds, effect.tasks, effect.lacks,
    )  # fmt: skip


def _counted(tree: Requirements, parts: Iterator[Part]) -> Outcome:
    """The outcome of a tree, from those of its leaves in their order."""
    outcomes = [
        next(parts).outcome if isinstance(child, Requirement) else _counted(child, parts)
        for child in tree.children
    ]
    if outcomes.count(HOLDS) >= tree.needed:
        return HOLDS
    return FAILS if len(outcomes) - outcomes.count(FAILS) < tree.needed else OPEN


def _room(part: Part) -> float:
    """How far an effect is inside its region, in half-widths of its interval; outside: below 0."""
    if part.estimate is None or math.isnan(part.estimate.low):
        return -math.inf
    value, half = part.estimate.value, max((part.estimate.high - part.estimate.low) / 2, 1e-300)
    return min(value - part.least, part.most - value) / half


def _what_would_settle(leaf: Requirement, part: Part, confidence: float) -> list[str]:
    if part.outcome != OPEN:
        return []
    return list(part.lacks) or leaf.effect.more(leaf.test.least, leaf.test.most, confidence)
