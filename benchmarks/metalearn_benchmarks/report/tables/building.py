"""Result tables, computed from records: one for each setting, a row for each method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import attrs

from metalearn_benchmarks.experiments.rows import UNDER_CONDITIONS
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.records.row_names import without_steps
from metalearn_benchmarks.report.grouping import steps_of_groups
from metalearn_benchmarks.report.tables.comparing import compare_with, mark_best
from metalearn_benchmarks.report.tables.notes import condition_notes, size_note
from metalearn_benchmarks.report.tables.result_table import ResultTable, Row
from metalearn_benchmarks.statistics.estimate import Estimate
from metalearn_benchmarks.statistics.headline import count_never_learned
from metalearn_benchmarks.statistics.paired_scores import MethodScores
from metalearn_benchmarks.statistics.summaries import Summary, summarise_method
from metalearn_core.errors import unknown


def result_tables(
    records: Iterable[Record], interval_method: str = "t", against: str | None = None
) -> list[ResultTable]:
    """Compute a table for each setting of each experiment.

    Args:
        records: the records by experiment, setting, method and seed.
        interval_method: how intervals are made, see `summarise_method`.
        against: the method that differences are taken from, in each table that has it. By default it is the
            method whose conditions a `--rule` has, and in a table without such a rule the best row.

    Raises:
        UsageError: runs of one table were tested on different tasks, a run is there twice, or no table has
            the method `against`.
    """
    records = list(records)
    names = {without_steps(record.method) for record in records}
    if against is not None and against not in names:
        raise unknown("method", against, names)
    groups = groupby(records, lambda r: (r.experiment, r.setting))
    return [_table(list(group), interval_method, against) for _, group in groups]


def _table(runs: list[Record], interval_method: str, against: str | None) -> ResultTable:
    """The table of one setting."""
    score, up = runs[0].score, runs[0].higher_is_better
    by_method = [list(of_method) for _, of_method in groupby(runs, lambda r: r.method)]
    scores = {of_method[0].method: MethodScores.from_runs(of_method) for of_method in by_method}
    at = steps_of_groups(runs)
    rows = [
        _row(
            of_method,
            summarise_method(
                scores[of_method[0].method].values, interval_method, score=score, higher_is_better=up
            ),
            at[of_method[0].method],
        )
        for of_method in by_method
    ]
    rows.sort(key=lambda row: (row.group, _rank(row.headline, up)))
    table = ResultTable(runs[0].experiment, runs[0].setting, score, up, rows, interval_method)
    marked = [mark_best(group, scores, up) for group in table.groups]
    chosen = against or _baseline(runs)
    if chosen is not None:
        marked = [compare_with(chosen, group, scores, up) for group in marked]
    return attrs.evolve(
        table,
        rows=[row for group in marked for row in group],
        small=size_note(runs),
        conditions=condition_notes(runs),
    )


def _baseline(runs: Sequence[Record]) -> str | None:
    """The method whose conditions the rules without a method of their own have, where there is only one."""
    sources = {str(run.cell["method"].get("source", "")) for run in runs}
    titles = {s.removeprefix(UNDER_CONDITIONS) for s in sources if s.startswith(UNDER_CONDITIONS)}
    found = {without_steps(run.method) for run in runs if run.title in titles}
    return found.pop() if len(titles) == len(found) == 1 else None


def _rank(headline: Estimate, up: bool) -> tuple[bool, float]:
    return math.isnan(headline.value), -headline.value if up else headline.value


def _row(runs: Sequence[Record], summary: Summary, group: int) -> Row:
    first = runs[0]
    return Row(
        method=first.method,
        title=first.title,
        headline=summary.headline,
        mean=summary.mean,
        median=summary.median,
        intervals_over=summary.intervals_over,
        steps=first.steps,
        seeds=len(runs),
        tasks=len(first.final),
        seconds=sum(run.result["seconds"] for run in runs) / len(runs),
        diverged=sum(run.result["diverged"] is not None for run in runs),
        interquartile_mean=summary.interquartile_mean,
        outliers=summary.outliers,
        not_finite=summary.not_finite,
        never_learned=count_never_learned(runs),
        group=group,
    )
