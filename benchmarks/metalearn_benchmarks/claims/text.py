"""Verdicts on the paper's claims as a terminal table, as Markdown and as JSON data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from metalearn_benchmarks.claims.verdicts import Outcome, Part, Verdict
from metalearn_benchmarks.host.escape import for_markdown, visible
from metalearn_benchmarks.host.table_fitting import Column, FittedTable
from metalearn_benchmarks.records.files import replace_non_finite
from metalearn_benchmarks.statistics.estimate import Estimate

OUTCOME_COLOURS = {Outcome.HOLDS: "green", Outcome.FAILS: "red", Outcome.OPEN: "yellow"}
COLUMNS = (
    Column("claim", wraps=True), Column("verdict"), Column("parts", rank=2), Column("effect, 95 %", rank=1),
    Column("asked", wraps=True, rank=3), Column("seeds", rank=4), Column("tasks", rank=5),
)  # fmt: skip
"""The columns on a terminal; in a narrow one the last ones by rank are left out."""
MAX_ADVICE_LINES = 4
"""The lines of advice shown for a claim; the rest is counted."""


@attrs.frozen
class VerdictOverview:
    """All verdicts as rich prints them: a table, the advice for open ones, and a summary."""

    verdicts: Sequence[Verdict]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._table()
        for verdict in self.verdicts:
            yield from _details(verdict)
        yield Text()
        yield Text(verdict_summary(self.verdicts))

    def _table(self) -> FittedTable:
        return FittedTable(
            COLUMNS, [_cells(verdict) for verdict in self.verdicts], elsewhere="--json has all",
            title="The paper's claims", box=box.HEAVY_HEAD,
        )  # fmt: skip


def _cells(verdict: Verdict) -> list[Text]:
    part = verdict.decisive_part
    cells = ("–", "–", "–", "–")
    if part is not None and part.estimate is not None:
        cells = (format_effect(part.estimate), part.threshold, str(part.seeds), str(part.tasks))
    elif part is not None:
        cells = ("–", part.threshold, "–", "–")
    outcome = Text(verdict.outcome, style=OUTCOME_COLOURS[verdict.outcome])
    return [Text(verdict.name), outcome, *map(Text, (_parts_that_hold(verdict), *cells))]


def format_effect(estimate: Estimate) -> str:
    """Return a number and its interval with three significant digits."""
    if math.isnan(estimate.low):
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _parts_that_hold(verdict: Verdict) -> str:
    """The number of parts that hold, and of all parts."""
    hold = sum(part.outcome == Outcome.HOLDS for part in verdict.parts)
    return f"{hold} of {len(verdict.parts)} hold"


def _details(verdict: Verdict) -> list[Text]:
    """The claim in the paper's words, its decisive part, and what would settle it."""
    lines = [f"  {verdict.says} ({verdict.source})", f"  rule: {verdict.why}"]
    part = verdict.decisive_part
    if part is not None and part.estimate is not None:
        lines.append(f"  {_describe_part(part)}")
    name = "would settle it" if verdict.outcome == Outcome.OPEN else "see"
    lines += [f"  {name}: {line}" for line in verdict.advice[:MAX_ADVICE_LINES]]
    if len(verdict.advice) > MAX_ADVICE_LINES:
        lines.append(f"  and {len(verdict.advice) - MAX_ADVICE_LINES} more; --json has all")
    heading = Text.assemble((verdict.name, "bold"), ": ", (verdict.outcome, OUTCOME_COLOURS[verdict.outcome]))
    return [Text(), heading, *(Text(visible(line)) for line in lines)]


def _describe_part(part: Part) -> str:
    assert part.estimate is not None
    return (
        f"{part.label}: {format_effect(part.estimate)}, {part.threshold} is asked; {part.seeds} seed(s),"
        f" {part.tasks} test task(s)"
    )


def verdicts_with_evidence(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts on claims that the records have any evidence for."""
    return [
        one for one in verdicts if one.decisive_part is not None and one.decisive_part.estimate is not None
    ]


def as_markdown(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a Markdown table with the decisive part of each."""
    lines = ["| claim | verdict | effect, 95 % | asked | seeds | test tasks |", "|---|---|---|---|---|---|"]
    for verdict in verdicts_with_evidence(verdicts):
        part = verdict.decisive_part
        assert part is not None
        assert part.estimate is not None
        cells = (
            for_markdown(f"{verdict.says} ({verdict.source})"), f"**{verdict.outcome}**",
            for_markdown(f"{part.label}: {format_effect(part.estimate)}"), for_markdown(part.threshold),
            str(part.seeds), str(part.tasks),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def verdict_summary(verdicts: Sequence[Verdict]) -> str:
    """Return the number of claims with each outcome, and how many may be wrong by chance."""
    counts = [(sum(v.outcome == outcome for v in verdicts), str(outcome)) for outcome in Outcome]
    decided = [v for v in verdicts if v.outcome != Outcome.OPEN and any(p.estimate for p in v.parts)]
    text = f"{len(verdicts)} claims: " + ", ".join(f"{count} {name}" for count, name in counts) + "."
    if decided:
        wrong = sum(1 - v.confidence for v in decided)
        text += (
            f" Each claim is decided for itself, at {decided[0].confidence:.0%}: of the {len(decided)} that"
            f" records decide, up to {wrong:.2g} may be wrong by chance."
        )
    return text


def as_data(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return the verdicts as data for JSON; a bound that does not exist is null."""
    return [replace_non_finite(_verdict_data(verdict)) for verdict in verdicts]


def _verdict_data(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.name, "says": verdict.says, "source": verdict.source, "why": verdict.why,
        "confidence": verdict.confidence, "parts": [_part_data(part) for part in verdict.parts],
        "settle": verdict.advice, "verdict": str(verdict.outcome),
    }  # fmt: skip


def _part_data(part: Part) -> dict[str, Any]:
    estimate, shared = (None if e is None else attrs.asdict(e) for e in (part.estimate, part.shared))
    return {
        "label": part.label, "asked": part.threshold, "least": part.least, "most": part.most,
        "estimate": estimate, "shared": shared, "seeds": part.seeds, "tasks": part.tasks,
        "lacks": part.missing, "verdict": str(part.outcome),
    }  # fmt: skip
