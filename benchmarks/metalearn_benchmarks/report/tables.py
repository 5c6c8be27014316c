"""The result table of a setting: a row for each method, computed from records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import attrs

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.numbers import NO_ESTIMATE
from metalearn_benchmarks.report.table_notes import table_notes
from metalearn_benchmarks.statistics.comparisons import Contrast, difference, holm
from metalearn_benchmarks.statistics.estimate import Estimate
from metalearn_benchmarks.statistics.paired_scores import MethodScores
from metalearn_benchmarks.statistics.summaries import Summary, summarise_method

SIGNIFICANCE_LEVEL = 0.05
"""The level at which rows are distinguished, over all comparisons of a table."""
MIN_BOOTSTRAP_SEEDS = 10
"""With fewer seeds than these, the caption warns that bootstrap intervals are too narrow."""


@attrs.frozen
class Row:
    """The results of one method, with 95 % intervals.

    Args:
        method: the name of the method.
        title: its title.
        mean: the mean score.
        median: the median score.
        intervals_over: what was sampled: "test tasks", "seeds", or "seeds and test tasks".
        steps: the number T of inner steps.
        seeds: the number of runs.
        tasks: the number of test tasks.
        seconds: the mean wall time of a run.
        diverged: the number of runs that diverged.
        interquartile_mean: the interquartile mean of the score.
        best: whether the mean is significantly better than that of every other row.
        tied: whether other rows differ significantly from the best mean, but this one does not.
        difference_from_best: the mean minus that of the row with the best mean, paired; None for that row,
            and where the two have no seed in common.
        adjusted_p: the p-value of `difference_from_best`, adjusted for all comparisons of the table; NaN
            where there is none.
        outliers: the number of runs that `"paper"` leaves out of the mean, the median and the interquartile
            mean.
        not_finite: the number of scores that are not finite; they count as the worst.
    """

    method: str
    title: str
    mean: Estimate
    median: Estimate
    intervals_over: str
    steps: int
    seeds: int
    tasks: int
    seconds: float
    diverged: int
    interquartile_mean: Estimate = NO_ESTIMATE
    best: bool = False
    tied: bool = False
    difference_from_best: Contrast | None = None
    adjusted_p: float = math.nan
    outliers: tuple[int, int, int] = (0, 0, 0)
    not_finite: int = 0


@attrs.frozen
class ResultTable:
    """The results of one setting.

    Args:
        experiment: the name of the experiment.
        setting: the name of the setting.
        score: the name of the score.
        higher_is_better: whether a higher score is better.
        rows: a row for each method, best mean first.
        interval_method: how the intervals are made, see `summarise_method`.
        notes: what the rows have to be read with, a line each, see `table_notes`.
    """

    experiment: str
    setting: str
    score: str
    higher_is_better: bool
    rows: list[Row]
    interval_method: str = "t"
    notes: Sequence[str] = ()

    @property
    def caption(self) -> str:
        """The caption: what the numbers are, what the intervals are over, and what the marks mean."""
        return " ".join([*self.notes, *self.sentences])

    @property
    def sentences(self) -> list[str]:
        """The parts of the caption without the notes, a sentence or two each."""
        up = self.higher_is_better
        parts = [
            f"Experiment {self.experiment}, {self.setting}: {self.score} on the query set after T steps,"
            f" {'higher' if up else 'lower'} is better.",
            *self._interval_notes(),
            *self._mark_notes(),
        ]
        for row in self.rows:
            if row.diverged:
                parts.append(
                    f"{row.title}: {row.diverged} of {row.seeds} runs diverged, tested at its best state."
                )
            if row.not_finite:
                parts.append(
                    f"{row.title}: {row.not_finite} of {row.seeds * row.tasks} scores are not finite and"
                    " count as the worst; they leave no mean."
                )
            if any(row.outliers):
                parts.append(
                    f"{row.title}: the paper's way leaves {', '.join(map(str, row.outliers))} of {row.seeds}"
                    " runs out of the mean, the median and the interquartile mean."
                )
        return parts

    def _interval_notes(self) -> list[str]:
        over = sorted({row.intervals_over for row in self.rows})
        method_note = {
            "t": "",
            "bootstrap": "Intervals are BCa bootstrap intervals.",
            "paper": "Intervals are made as the paper's program makes them: outliers among the runs are left"
            " out, 1.96 standard errors; one run has none.",
        }[self.interval_method]
        where = "." if len(over) == 1 else ", as the number of seeds of a row allows."
        few = (
            [row.title for row in self.rows if 1 < row.seeds < MIN_BOOTSTRAP_SEEDS]
            if self.interval_method == "bootstrap"
            else []
        )
        return [
            *filter(None, [method_note]),
            f"Intervals are over {' or '.join(over)}{where}",
            *(
                [f"With fewer than {MIN_BOOTSTRAP_SEEDS} seeds bootstrap intervals are too narrow."]
                if few
                else []
            ),
        ]

    def _mark_notes(self) -> list[str]:
        if len(self.rows) < 2:
            return []
        paired = "Differences are paired over seeds and test tasks"
        if any(row.best or row.tied for row in self.rows):
            return [
                f"{paired}. In bold: the best mean; ≈: rows that cannot be told from it at 95 % (Holm's"
                " correction for all pairs of rows)."
            ]
        if all(row.seeds == 1 for row in self.rows):
            return [f"{paired}. No row is marked best: that takes several seeds."]
        return [f"{paired}. No row is marked best: the records do not say which is."]


def result_tables(records: Iterable[Record], interval_method: str = "t") -> list[ResultTable]:
    """Compute a table for each setting of each experiment.

    Args:
        records: the records by experiment, setting, method and seed.
        interval_method: how intervals are made, see `summarise_method`.

    Raises:
        UsageError: runs of one table were tested on different tasks, or a run is there twice.
    """
    found = []
    for (experiment, setting), group in groupby(records, lambda r: (r.experiment, r.setting)):
        runs = list(group)
        score, up = runs[0].score, runs[0].higher_is_better
        by_method = [list(of_method) for _, of_method in groupby(runs, lambda r: r.method)]
        scores = {of_method[0].method: MethodScores.from_runs(of_method) for of_method in by_method}
        rows = [
            _row(
                of_method,
                summarise_method(
                    scores[of_method[0].method].values, interval_method, score=score, higher_is_better=up
                ),
            )
            for of_method in by_method
        ]
        rows.sort(key=lambda row: (math.isnan(row.mean.value), -row.mean.value if up else row.mean.value))
        marked = _mark_best(rows, scores)
        second = marked[1].difference_from_best if len(marked) > 1 else None
        notes = table_notes(runs, [row.title for row in marked], second)
        found.append(ResultTable(experiment, setting, score, up, marked, interval_method, notes))
    return found


def _row(runs: Sequence[Record], summary: Summary) -> Row:
    first = runs[0]
    return Row(
        method=first.method,
        title=first.title,
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
    )


def _mark_best(rows: list[Row], scores: dict[str, MethodScores]) -> list[Row]:
    """The rows, best mean first, with differences from the best, and with marks where the tests allow them.

    A row with scores that are not finite is worse than one without, and needs no test. With a single seed
    nothing is marked, since it says nothing about other seeds.
    """
    first, rest = rows[0], rows[1:]
    differences = [_paired_difference(scores[row.method], scores[first.method]) for row in rest]
    p_values = [c.p_value() if c is not None and c.seeds > 1 else math.nan for c in differences]
    # the first row was chosen as the best of these: any pair of rows could have been tested here
    adjusted = holm(p_values, among=math.comb(len(rows), 2))
    distinct = [row.not_finite > 0 or p < SIGNIFICANCE_LEVEL for row, p in zip(rest, adjusted, strict=True)]
    decided = first.seeds > 1 and not first.not_finite and any(distinct)
    ties = [decided and not differs for differs in distinct]
    return [
        attrs.evolve(first, best=decided and not any(ties), tied=decided and any(ties)),
        *(
            attrs.evolve(row, difference_from_best=contrast, adjusted_p=p, tied=tied)
            for row, contrast, p, tied in zip(rest, differences, adjusted, ties, strict=True)
        ),
    ]


def _paired_difference(one: MethodScores, first: MethodScores) -> Contrast | None:
    return difference(one, first) if {*one.seeds} & {*first.seeds} else None
