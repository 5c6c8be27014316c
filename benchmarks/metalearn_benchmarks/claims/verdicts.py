"""Decide the paper's claims from records: holds, does not hold, or too little evidence.

Every test consists of effects with intervals, and of a claimed range. A part holds where its interval lies
within the range. It does not hold where its interval lies outside. Otherwise the records leave it open.
Where all of several parts must hold, each is judged at the claim's confidence: if the claim is false, one
part is false, and that part rarely passes. Where one part out of many could refute or confirm the claim, the
parts share the error (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum

import attrs

from metalearn_benchmarks.claims.evidence import EvidenceFinder
from metalearn_benchmarks.claims.requirements import (
    Requirement,
    Requirements,
    require_all,
    requirements_of_test,
)
from metalearn_benchmarks.claims.rules import ClaimRule, Rules
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.estimate import Estimate


class Outcome(StrEnum):
    """The outcome of a claim or of a part of it."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "too little evidence"


HOLDS, FAILS, OPEN = Outcome.HOLDS, Outcome.FAILS, Outcome.OPEN


@attrs.frozen
class Part:
    """One effect of a claim, judged against its range.

    Args:
        label: what the effect is, in words.
        threshold: the range that the claim asks for, in words.
        least: the lower end of the range.
        most: the upper end of the range.
        outcome: whether the effect lies in the range.
        estimate: the effect with its interval at the claim's confidence; None where there are no records.
        shared: the effect with its interval at the Bonferroni confidence of all parts together.
        seeds: the number of seeds that the effect is computed from.
        tasks: the number of test tasks that it is computed from.
        missing: a line for each reason why this part decides nothing, whatever its interval.
    """

    label: str
    threshold: str
    least: float
    most: float
    outcome: Outcome
    estimate: Estimate | None
    shared: Estimate | None
    seeds: int
    tasks: int
    missing: tuple[str, ...]


@attrs.frozen
class Verdict:
    """The verdict on a claim.

    Args:
        name: the key of the claim in `claims.toml`.
        says: the claim in the paper's words.
        source: the place in the paper.
        why: why the rule that decides is as it is.
        outcome: whether the claim holds.
        confidence: the confidence at which the claim is decided.
        parts: all effects of the claim.
        advice: a line for each thing that would settle an open claim.
    """

    name: str
    says: str
    source: str
    why: str
    outcome: Outcome
    confidence: float
    parts: tuple[Part, ...]
    advice: tuple[str, ...]

    @property
    def decisive_part(self) -> Part | None:
        """The part with the same outcome as the claim that is furthest from holding."""

        def rank(part: Part) -> tuple[bool, bool, float]:
            return part.outcome != self.outcome, part.estimate is None, _margin(part)

        return min(self.parts, key=rank, default=None)


def decide_all(rules: Rules, records: Sequence[Record]) -> list[Verdict]:
    """Decide every claim from these records, in the order of the rules."""
    evidence = EvidenceFinder(records)
    return [decide(name, claim, rules, evidence) for name, claim in rules.claim.items()]


def decide(name: str, claim: ClaimRule, rules: Rules, evidence: EvidenceFinder) -> Verdict:
    """Decide the claim with this name."""
    if claim.map:
        return _decide_by_map(name, claim, rules.confidence)
    tree = require_all([requirements_of_test(test, rules, evidence) for test in claim.test])
    leaves = list(tree.leaves())
    shared = 1 - (1 - rules.confidence) / len(leaves)
    parts = [_judge(leaf, rules.confidence, shared, tree.needs_all()) for leaf in leaves]
    outcome = _combined_outcome(tree, iter(parts))
    advice: list[str] = []
    if outcome == OPEN:
        for leaf, part in zip(leaves, parts, strict=True):
            confidence = rules.confidence if tree.needs_all() else shared
            advice += _advice(leaf, part, confidence)
    unique = tuple(dict.fromkeys(advice))
    return Verdict(
        name, claim.says, claim.source, claim.why, outcome, rules.confidence, tuple(parts), unique
    )  # fmt: skip


def _decide_by_map(name: str, claim: ClaimRule, confidence: float) -> Verdict:
    """Decide a theorem: it holds where the map of rules has it. Property tests check the map on examples."""
    from metalearn_benchmarks.theory import shipped_map

    relation = shipped_map().relation(claim.map["special"], claim.map["general"])
    outcomes = {"exact": HOLDS, "limit": HOLDS, "same": HOLDS, "not": FAILS}
    part = Part(
        label=f"{claim.map['general']} contains {claim.map['special']}: {relation.verdict}",
        threshold="exact or in the limit", least=-math.inf, most=math.inf,
        outcome=outcomes.get(relation.verdict, OPEN),
        estimate=None, shared=None, seeds=0, tasks=0, missing=(),
    )  # fmt: skip
    check = f"`metalearn map {claim.map['general']} --check 200` checks it here"
    return Verdict(
        name, claim.says, claim.source, claim.why, part.outcome, confidence, (part,),
        (f"held by {claim.held_by}; {check}",),
    )  # fmt: skip


def _judge(leaf: Requirement, plain: float, shared: float, needs_all: bool) -> Part:
    effect, test = leaf.effect, leaf.test
    own, common = effect.estimate(plain), effect.estimate(shared)
    outcome = OPEN
    if own is not None and common is not None and not effect.missing:
        bearing = own if needs_all else common
        if test.least < bearing.low and bearing.high < test.most:
            outcome = HOLDS
        elif common.high <= test.least or common.low >= test.most:
            outcome = FAILS
    return Part(
        effect.label, test.threshold, test.least, test.most, outcome, own, common,
        effect.seeds, effect.tasks, effect.missing,
    )  # fmt: skip


def _combined_outcome(tree: Requirements, parts: Iterator[Part]) -> Outcome:
    """The outcome of requirements, from the outcomes of the single ones in their order."""
    outcomes = [
        next(parts).outcome if isinstance(child, Requirement) else _combined_outcome(child, parts)
        for child in tree.children
    ]
    if outcomes.count(HOLDS) >= tree.needed:
        return HOLDS
    return FAILS if len(outcomes) - outcomes.count(FAILS) < tree.needed else OPEN


def _margin(part: Part) -> float:
    """How far an effect lies inside its range, in half-widths of its interval; negative outside."""
    if part.estimate is None or math.isnan(part.estimate.low):
        return -math.inf
    value, half = part.estimate.value, max((part.estimate.high - part.estimate.low) / 2, 1e-300)
    return min(value - part.least, part.most - value) / half


def _advice(leaf: Requirement, part: Part, confidence: float) -> list[str]:
    if part.outcome != OPEN:
        return []
    return list(part.missing) or leaf.effect.advice(leaf.test.least, leaf.test.most, confidence)
