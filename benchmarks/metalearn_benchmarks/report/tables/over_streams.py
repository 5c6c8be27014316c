"""Methods over all streams of tasks on which they were trained: the comparison of `statistics.streams`.

A result table is of one setting, and so of one stream. Where `task_seed` is an axis of an experiment, what is
said of its methods is said here.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

import attrs
import numpy as np
from rich import box
from rich.text import Text

from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.table_fitting import Column, FittedTable
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.records.row_names import compact_title, without_steps
from metalearn_benchmarks.report.numbers import format_interval, format_number
from metalearn_benchmarks.statistics.comparisons import holm, middle_mean
from metalearn_benchmarks.statistics.headline import count_never_learned
from metalearn_benchmarks.statistics.paired_scores import MethodScores
from metalearn_benchmarks.statistics.streams import StreamContrast, typical_log_ratio_over_streams

STREAM = re.compile(r",task_seed=\d+")
Runs: TypeAlias = Mapping[int, Sequence[Record]]
"""The runs of a method, by stream."""


@attrs.frozen
class StreamRow:
    """A method over all streams.

    Args:
        method, title: its name and its title.
        steps: the number T of inner steps.
        runs: how many runs it has on all streams together.
        typical_error: the mean over the middle half of all of them.
        by_stream: the typical error on each stream.
        never_learned: the number of runs that never learned; None where that is not known.
        contrast: this row over the reference of its T; None for the reference.
        apart: whether the two are told apart: after Holm's correction, and on every stream alike.
    """

    method: str
    title: str
    steps: int
    runs: int
    typical_error: float
    by_stream: Sequence[float]
    never_learned: int | None
    contrast: StreamContrast | None = None
    apart: bool = False


@attrs.frozen
class StreamTable:
    """The methods of a setting over its streams. The first row of each T is the others' reference."""

    experiment: str
    setting: str
    streams: Sequence[int]
    rows: Sequence[StreamRow]

    @property
    def caption(self) -> str:
        """What the numbers are."""
        streams = ", ".join(map(str, self.streams))
        first = (
            "the first row of the same T" if len({row.steps for row in self.rows}) > 1 else "the first row"
        )
        return (
            f"Experiment {self.experiment}, {self.setting}, over {len(self.streams)} streams of training"
            f" tasks (task_seed {streams}). The typical error is the mean over the middle half of the runs,"
            f" each with its median over test tasks. A ratio is to {first}; its interval is a bootstrap's"
            " over runs and test tasks. Told apart: beyond chance (Holm), and alike on every stream."
        )


def stream_tables(records: Sequence[Record], against: str | None = None) -> list[StreamTable]:
    """Return a table for each setting that was trained on several streams; of errors alone.

    Args:
        records: the records by experiment, setting, method and seed, as `read_records` gives them.
        against: the method that ratios are taken to, where it is there; by default the best of each T.
    """
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if not record.higher_is_better:
            groups[record.experiment, STREAM.sub("", record.setting)].append(record)
    tables = (_table(*names, runs, against) for names, runs in groups.items())
    return [table for table in tables if table is not None]


def _table(experiment: str, setting: str, records: list[Record], against: str | None) -> StreamTable | None:
    methods: dict[str, dict[int, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        methods[record.method][_stream(record)].append(record)
    streams = sorted({_stream(record) for record in records})
    whole = {name: of for name, of in methods.items() if sorted(of) == streams}
    if len(streams) < 2 or not whole:
        return None
    rows = sorted((_row(of) for of in whole.values()), key=lambda row: (row.steps, row.typical_error))
    found: list[StreamRow] = []
    for _, group in groupby(rows, key=lambda row: row.steps):
        found += _compared(list(group), whole, against)
    return StreamTable(experiment, setting, streams, found)


def _stream(record: Record) -> int:
    return int(record.cell["method"]["settings"].get("task_seed", 0))


def _row(runs: Runs) -> StreamRow:
    every = [run for stream in sorted(runs) for run in runs[stream]]
    medians = [np.array([_median(run) for run in runs[stream]]) for stream in sorted(runs)]
    return StreamRow(
        every[0].method, compact_title(every[0].title), every[0].steps, len(every),
        float(middle_mean(np.concatenate(medians))), [float(middle_mean(own)) for own in medians],
        count_never_learned(every),
    )  # fmt: skip


def _median(run: Record) -> float:
    return float(np.median(np.where(np.isfinite(run.final), run.final, np.inf)))


def _compared(rows: list[StreamRow], runs: Mapping[str, Runs], against: str | None) -> list[StreamRow]:
    """The rows of one T, the reference first, each other row over it."""
    wanted = None if against is None else without_steps(against)
    first = next((row for row in rows if without_steps(row.method) == wanted), rows[0])
    others = [row for row in rows if row is not first]
    contrasts = [compare(runs[row.method], runs[first.method]) for row in others]
    adjusted = holm([contrast.p_value for contrast in contrasts])
    told = [
        attrs.evolve(row, contrast=contrast, apart=contrast.which_is_ahead(p) is not None)
        for row, contrast, p in zip(others, contrasts, adjusted, strict=True)
    ]
    return [first, *told]


def compare(one: Runs, other: Runs) -> StreamContrast:
    """Return one method over another, on the same streams.

    Raises:
        UsageError: the streams differ, or runs of a stream were tested on different tasks.
    """
    sides = [
        {stream: MethodScores.from_runs(runs).values for stream, runs in method.items()}
        for method in (one, other)
    ]
    return typical_log_ratio_over_streams(*sides)


def format_ratio(contrast: StreamContrast | None) -> str:
    """Return a ratio with its interval, or a dash where there is none."""
    if contrast is None or math.isnan(contrast.low):
        return "–"
    ratio = contrast.ratio()
    return f"{format_number(ratio.value)} {format_interval(ratio)}"


def rich_stream_table(table: StreamTable) -> FittedTable:
    """Return the table for printing with rich."""
    columns = (
        Column("method", wraps=True), Column("typical error", right=True),
        Column("on each stream", right=True, rank=2), Column("ratio, 95 %", right=True),
        Column("told apart", right=True, rank=1), Column("never learned", right=True, rank=4),
        Column("T", right=True, rank=5), Column("runs", right=True, rank=3),
    )  # fmt: skip
    return FittedTable(
        columns, [[Text(visible(cell)) for cell in row_cells(row)] for row in table.rows],
        elsewhere="report.html has all", box=box.HEAVY_HEAD,
        title=f"{table.experiment}: {table.setting}, over {len(table.streams)} streams",
        below=[table.caption],
    )  # fmt: skip


def row_cells(row: StreamRow) -> list[str]:
    """Return the cells of a row, in the order of the columns."""
    apart = "–" if row.contrast is None else "yes" if row.apart else "no"
    never = "–" if row.never_learned is None else str(row.never_learned)
    by_stream = ", ".join(map(format_number, row.by_stream))
    ratio = format_ratio(row.contrast)
    return [
        row.title,
        format_number(row.typical_error),
        by_stream,
        ratio,
        apart,
        never,
        str(row.steps),
        str(row.runs),
    ]
