"""The seventeen claims in one table: verdict, effect, and what became of the rule that decides. Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from paper_times import CLAIMS as TIME_CLAIMS
from paper_times import time_verdicts

from metalearn_benchmarks.claims.rules import claim_rules
from metalearn_benchmarks.claims.text import format_effect, verdicts_with_evidence
from metalearn_benchmarks.claims.verdicts import Outcome, Verdict, decide_all
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.comparisons import Contrast, difference, log_ratio
from metalearn_benchmarks.statistics.estimate import Estimate
from metalearn_benchmarks.statistics.paired_scores import MethodScores

AS_FIRST_WRITTEN: Mapping[str, tuple[str, str, Callable[..., Contrast], float]] = {
    "sine-order-turtle": ("fo-turtle", "turtle", log_ratio, math.log(2)),
    "sine-order-maml": ("fo-maml", "maml", log_ratio, math.log(1.25)),
    "sine-ranking": ("maml", "turtle", difference, 0.0),
    "sine-premise": ("lstm", "maml", difference, 0.0),
}
"""By the rule as first written, of means: two rows of Figure 3.3, and what their effect had to exceed."""
FIRST_WRITTEN_OTHERWISE = {
    "sine-depth": "*does not hold*, as now",
    "sine-stability": "*too little evidence* of five layers alone",
    **dict.fromkeys(TIME_CLAIMS, "the same rule"),
}
RESTS_ON = {
    "sine-ranking": "[clamps](plan.md), TURTLE's own above all",
    "sine-premise": "the clamp of MAML's support gradients",
    "sine-stability": "runs that never learned",
    "sine-depth": "the clip of the outer gradient",
    **dict.fromkeys(TIME_CLAIMS, "[noise on one CPU core](#times-on-noise)"),
}
"""What the effect would not be without, as the sections below show."""


def claims_at_a_glance(records: Sequence[Record]) -> str:
    """A row for each claim, those that are decided first."""
    found = {verdict.name: verdict for verdict in decide_all(claim_rules(), records)}
    found |= {verdict.name: verdict for verdict in time_verdicts()}
    decided = {verdict.name for verdict in verdicts_with_evidence([*found.values()])} | {"theorem-1"}
    rows = [_row(found[name], records) for name in found if name in decided]
    rest = [_unrun(verdict) for name, verdict in found.items() if name not in decided]
    head = (
        "| claim | verdict | effect, 95 % | by the rule as first written | rests on |\n"
        + "| --- " * 5
        + "|\n"
    )
    return head + "".join(f"| {' | '.join(row)} |\n" for row in [*rows, *rest])


def _row(verdict: Verdict, records: Sequence[Record]) -> tuple[str, ...]:
    part = verdict.decisive_part
    effect = "–" if part is None or part.estimate is None else format_effect(part.estimate)
    name = verdict.name
    if name == "theorem-1":
        return (
            f"`{name}`",
            f"**{verdict.outcome}**, in the limit",
            "–",
            "–",
            "[proofs and properties](theory.md)",
        )
    return (
        f"`{name}`",
        f"**{verdict.outcome}**",
        effect,
        as_first_written(name, records),
        RESTS_ON.get(name, "–"),
    )


def _unrun(verdict: Verdict) -> tuple[str, ...]:
    return f"`{verdict.name}`", "not told", "–", "–", "runs on images, which are [planned](plan.md)"


def as_first_written(name: str, records: Sequence[Record]) -> str:
    """What the first rule of a claim says: it compared means, over all runs and test tasks."""
    if name in FIRST_WRITTEN_OTHERWISE:
        return FIRST_WRITTEN_OTHERWISE[name]
    one, other, compare, threshold = AS_FIRST_WRITTEN[name]
    bounds = compare(_scores(records, one), _scores(records, other)).interval()
    return f"*{_outcome(bounds, threshold, upper=name == 'sine-order-maml')}*"


def _scores(records: Sequence[Record], method: str) -> MethodScores:
    row = ("figure-3.3", "sine-5-shot", method)
    return MethodScores.from_runs([r for r in records if (r.experiment, r.setting, r.method) == row])


def _outcome(bounds: Estimate, threshold: float, *, upper: bool) -> Outcome:
    """Whether an effect is above the threshold; or, of an upper one, whether it is below."""
    above, below = bounds.low > threshold, bounds.high < threshold
    if not (above or below):
        return Outcome.OPEN
    return Outcome.HOLDS if above != upper else Outcome.FAILS
