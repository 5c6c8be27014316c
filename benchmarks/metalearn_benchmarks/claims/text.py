"""Verdicts on the paper's claims, for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from metalearn_benchmarks.claims.verdicts import Outcome, Part, Verdict
from metalearn_benchmarks.records.files import null_for_not_finite
from metalearn_benchmarks.statistics.estimate import Estimate

LOOKS = {Outcome.HOLDS: "green", Outcome.FAILS: "red", Outcome.OPEN: "yellow"}
SHOWN = 4
"""Lines of what would settle a claim; the rest is counted."""


@attrs.frozen
class Overview:
    """All verdicts as rich prints them: a table, what would settle the open ones, how sure all this is."""

    verdicts: Sequence[Verdict]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._table()
        for verdict in self.verdicts:
            yield from _below(verdict)
        yield Text()
        yield Text(summary(self.verdicts))

    def _table(self) -> Table:
        table = Table(title="The paper's claims")
        for name in ("claim", "verdict", "parts", "effect, 95 %", "asked", "seeds", "tasks"):
            table.add_column(name, overflow="fold" if name == "claim" else "ellipsis")
        for verdict in self.verdicts:
            part = verdict.telling
            cells = ("–", "–", "–", "–")
            if part is not None and part.estimate is not None:
                cells = (effect(part.estimate), part.asked, str(part.seeds), str(part.tasks))
            elif part is not None:
                cells = ("–", part.asked, "–", "–")
            look = LOOKS[verdict.outcome]
            table.add_row(verdict.name, Text(verdict.outcome, style=look), _parts(verdict), *cells)
        return table


def effect(estimate: Estimate) -> str:
    """The number and its interval, with three digits that count."""
    if math.isnan(estimate.low):
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _parts(verdict: Verdict) -> str:
    """How many parts hold, of how many."""
    hold = sum(part.outcome == Outcome.HOLDS for part in verdict.parts)
    return f"{hold} of {len(verdict.parts)} hold"


def _below(verdict: Verdict) -> list[Text]:
    """The claim in the paper's words, what tells most, and what would settle it."""
    lines = [
        Text(),
        Text.assemble((verdict.name, "bold"), ": ", (verdict.outcome, LOOKS[verdict.outcome])),
        Text(f"  {verdict.says} ({verdict.source})"),
        Text(f"  rule: {verdict.why}"),
    ]
    part = verdict.telling
    if part is not None and part.estimate is not None:
        lines.append(Text(f"  {_told(part)}"))
    name = "would settle it" if verdict.outcome == Outcome.OPEN else "see"
    lines += [Text(f"  {name}: {line}") for line in verdict.settle[:SHOWN]]
    if len(verdict.settle) > SHOWN:
        lines.append(Text(f"  and {len(verdict.settle) - SHOWN} more; --json has all"))
    return lines


def _told(part: Part) -> str:
    assert part.estimate is not None
    return (
        f"{part.label}: {effect(part.estimate)}, {part.asked} is asked; {part.seeds} seed(s),"
        f" {part.tasks} test task(s)"
    )


def decided(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those that the records say anything of."""
    return [one for one in verdicts if one.telling is not None and one.telling.estimate is not None]


def as_markdown(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a Markdown table, with the part of each that tells most."""
    lines = ["| claim | verdict | effect, 95 % | asked | seeds | test tasks |", "|---|---|---|---|---|---|"]
    for verdict in decided(verdicts):
        part = verdict.telling
        assert part is not None
        assert part.estimate is not None
        cells = (
            f"{verdict.says} ({verdict.source})", f"**{verdict.outcome}**",
            f"{part.label}: {effect(part.estimate)}", part.asked, str(part.seeds), str(part.tasks),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many claims came out which way, and how many of the verdicts chance alone may have made."""
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
    """The verdicts as JSON has them; a bound that is not there is null."""
    found = []
    for verdict in verdicts:
        parts = [attrs.asdict(part) for part in verdict.parts]
        plain = {**attrs.asdict(verdict), "outcome": str(verdict.outcome), "parts": parts}
        plain["verdict"] = plain.pop("outcome")
        for part in parts:
            part["verdict"] = str(part.pop("outcome"))
        found.append(null_for_not_finite(plain))
    return found
