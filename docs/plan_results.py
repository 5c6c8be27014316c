"""What the runs of the plan say so far: its comparisons by its statistic, as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import attrs
import numpy as np

from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.tables.over_streams import Runs, compare
from metalearn_benchmarks.statistics.comparisons import holm
from metalearn_benchmarks.statistics.headline import never_learned
from metalearn_benchmarks.statistics.streams import StreamContrast

RECORDS = Path(__file__).parents[1] / "benchmarks" / "plan-records"
Row: TypeAlias = tuple[str, str, int, str]
"""A grid, a method, T, and the order of the gradient."""
Rows: TypeAlias = Mapping[Row, Runs]
"""The runs of each row, by stream."""


@attrs.frozen
class Comparison:
    """Two rows, and what is compared in them."""

    what: str
    one: Row
    other: Row


def _clamps(what: str, pairs: Sequence[tuple[str, str, str]]) -> list[Comparison]:
    return [
        Comparison(f"{what}{how}, T = {steps}", *(("clipping", row, steps, "second") for row in (one, other)))
        for how, one, other in pairs
        for steps in (5, 1)
    ]


QUESTIONS: Mapping[str, Sequence[Comparison]] = {
    "clipping": [
        *_clamps("TURTLE over MAML, ", [
            ("both clamped", "turtle", "maml"),
            ("both free", "turtle-free", "maml-free"),
            ("MAML alone free", "turtle", "maml-free"),
            ("TURTLE alone free", "turtle-free", "maml"),
        ]),
        *_clamps("MAML over clamped MAML, ", [
            ("support gradients free", "maml-inner-free", "maml"),
            ("outer gradient free", "maml-outer-free", "maml"),
            ("both free", "maml-free", "maml"),
        ]),
        *_clamps("TURTLE over clamped TURTLE, ", [
            ("support gradients free", "turtle-inner-free", "turtle"),
            ("outer gradient free", "turtle-outer-free", "turtle"),
            ("both free", "turtle-free", "turtle"),
        ]),
    ],
}  # fmt: skip
"""By the question of the plan: what Holm's correction goes over, whether it was run or not."""
STREAMS, SEEDS = (0, 1, 2), 10


def plan_results() -> str:
    """What the committed records of the plan's grids say."""
    return questions_text(rows_of(read_records(RECORDS)))


def questions_text(rows: Rows) -> str:
    """A table for each question of which a comparison is whole, and how many wait for their runs."""
    parts = [_question(name, comparisons, rows) for name, comparisons in QUESTIONS.items()]
    return "\n".join(part for part in parts if part) or "Nothing yet.\n"


def rows_of(records: Sequence[Record]) -> Rows:
    """The runs of each row by stream, rows alone that have all streams and all seeds."""
    found: dict[Row, dict[int, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        settings, method = record.cell["method"]["settings"], record.method.partition(",")[0]
        row = record.experiment, method, record.steps, settings.get("order", "second")
        found[row][settings.get("task_seed", 0)].append(record)
    return {
        row: dict(streams)
        for row, streams in found.items()
        if sorted(streams) == [*STREAMS] and all(len(runs) >= SEEDS for runs in streams.values())
    }


def _question(name: str, comparisons: Sequence[Comparison], rows: Rows) -> str:
    whole = [c for c in comparisons if c.one in rows and c.other in rows]
    if not whole:
        return ""
    found = [compare(rows[c.one], rows[c.other]) for c in whole]
    adjusted = holm([contrast.p_value for contrast in found], among=len(comparisons))
    head = "| | ratio of typical errors, 95 % | on each stream | never learned | after Holm's correction |\n"
    lines = []
    for c, contrast, p in zip(whole, found, adjusted, strict=True):
        stuck = f"{_stuck(rows[c.one])} and {_stuck(rows[c.other])}"
        cells = (c.what, _ratio(contrast), _by_stream(contrast), stuck, _said(contrast, p))
        lines.append(f"| {' | '.join(cells)} |")
    missing = len(comparisons) - len(whole)
    rest = f"\n{missing} of {len(comparisons)} comparisons wait for their runs.\n" if missing else ""
    return f"### {name.capitalize()}\n\n{head}{'| --- ' * 5}|\n" + "\n".join(lines) + f"\n{rest}"


def _ratio(contrast: StreamContrast) -> str:
    ratio = contrast.ratio()
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _by_stream(contrast: StreamContrast) -> str:
    return ", ".join(f"{np.exp(value):.2f}" for value in contrast.by_stream.values())


def _stuck(streams: Runs) -> int:
    return sum(bool(never_learned(run)) for runs in streams.values() for run in runs)


def _said(contrast: StreamContrast, adjusted: float) -> str:
    said = {"one": "the first is ahead", "other": "the second is ahead", None: "not told"}
    return said[contrast.which_is_ahead(adjusted)]
