"""The table of an experiment: a row per method, from records alone. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import attrs

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.numbers import NOTHING
from metalearn_benchmarks.statistics.comparisons import Contrast, difference, holm
from metalearn_benchmarks.statistics.estimate import Estimate
from metalearn_benchmarks.statistics.paired_scores import Scores
from metalearn_benchmarks.statistics.summaries import Summary, summarise

LEVEL = 0.05
"""Rows are told apart at this level, over all comparisons of a table."""
FEW = 10
"""Bootstrap intervals over fewer seeds than these are said to be too narrow."""


@attrs.frozen
class Row:
    """One method: its mean, median and interquartile mean with 95 % intervals.

    Args:
        over: what the intervals are over.
        best: its mean is better than that of every other row, and the records say so.
        tied: the records do not tell it from the row with the best mean, though they tell others.
        behind: its mean less that of the row with the best mean, paired; None for that row, and where
            they have no seed in common.
        adjusted_p: of `behind`, for all comparisons of the table; NaN where there is none.
        left_out: how many runs the paper's way leaves out of the mean, the median, the interquartile mean.
        not_finite: how many of its scores are no finite number; they count as the worst.
    """

    method: str
    title: str
    mean: Estimate
    median: Estimate
    over: str
    steps: int
    seeds: int
    tasks: int
    seconds: float
    diverged: int
    interquartile_mean: Estimate = NOTHING
    best: bool = False
    tied: bool = False
    behind: Contrast | None = None
    adjusted_p: float = math.nan
    left_out: tuple[int, int, int] = (0, 0, 0)
    not_finite: int = 0


@attrs.frozen
class ResultTable:
    """The rows of one experiment and setting, best mean first; `way`: of statistics, see `summarise`."""

    experiment: str
    setting: str
    score: str
    higher_is_better: bool
    rows: list[Row]
    way: str = "t"

    @property
    def caption(self) -> str:
        """What the numbers are, what the intervals are over, and what the marks mean."""
        up = self.higher_is_better
        parts = [
            f"Experiment {self.experiment}, {self.setting}: {self.score} on the query set after T steps,"
            f" {'higher' if up else 'lower'} is better.",
            *self._of_intervals(),
            *self._of_marks(),
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
            if any(row.left_out):
                parts.append(
                    f"{row.title}: the paper's way leaves {', '.join(map(str, row.left_out))} of {row.seeds}"
                    " runs out of the mean, the median and the interquartile mean."
                )
        return " ".join(parts)

    def _of_intervals(self) -> list[str]:
        over = sorted({row.over for row in self.rows})
        told = {
            "t": "",
            "bootstrap": "Intervals are BCa bootstrap intervals.",
            "paper": "Intervals are made as the paper's program makes them: outliers among the runs are left"
            " out, 1.96 standard errors; one run has none.",
        }[self.way]
        where = "." if len(over) == 1 else ", as the number of seeds of a row allows."
        few = [row.title for row in self.rows if 1 < row.seeds < FEW] if self.way == "bootstrap" else []
        return [
            *filter(None, [told]),
            f"Intervals are over {' or '.join(over)}{where}",
            *([f"With fewer than {FEW} seeds bootstrap intervals are too narrow."] if few else []),
        ]

    def _of_marks(self) -> list[str]:
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


def result_tables(records: Iterable[Record], way: str = "t") -> list[ResultTable]:
    """One table for each experiment and setting; `way`: of statistics, see `summarise`.

    Raises UsageError where the runs of one table were tested on different tasks, or one is there twice.
    """
    found = []
    for (experiment, setting), group in groupby(records, lambda r: (r.experiment, r.setting)):
        runs = list(group)
        score, up = runs[0].score, runs[0].higher_is_better
        by_method = [list(of_method) for _, of_method in groupby(runs, lambda r: r.method)]
        scores = {of_method[0].method: Scores.of(of_method) for of_method in by_method}
        rows = [
            _row(
                of_method,
                summarise(scores[of_method[0].method].values, way, score=score, higher_is_better=up),
            )
            for of_method in by_method
        ]
        rows.sort(key=lambda row: (math.isnan(row.mean.value), -row.mean.value if up else row.mean.value))
        found.append(ResultTable(experiment, setting, score, up, _marked(rows, scores), way))
    return found


def _row(runs: Sequence[Record], summary: Summary) -> Row:
    first = runs[0]
    return Row(
        method=first.method,
        title=first.title,
        mean=summary.mean,
        median=summary.median,
        over=summary.over,
        steps=first.steps,
        seeds=len(runs),
        tasks=len(first.final),
        seconds=sum(run.result["seconds"] for run in runs) / len(runs),
        diverged=sum(run.result["diverged"] is not None for run in runs),
        interquartile_mean=summary.interquartile_mean,
        left_out=summary.left_out,
        not_finite=summary.not_finite,
    )


def _marked(rows: list[Row], scores: dict[str, Scores]) -> list[Row]:
    """The rows, best mean first, with how far behind each is, and marks where the records bear them.

    A row whose scores are not all finite is worse than one whose are: it is told apart without a test.
    One seed tells of that seed alone, so it marks nothing.
    """
    first, rest = rows[0], rows[1:]
    behind = [_behind(scores[row.method], scores[first.method]) for row in rest]
    tested = [c.p_value() if c is not None and c.seeds > 1 else math.nan for c in behind]
    # the first is the best of these rows themselves: any pair of them might have stood here
    adjusted = holm(tested, among=math.comb(len(rows), 2))
    apart = [row.not_finite > 0 or p < LEVEL for row, p in zip(rest, adjusted, strict=True)]
    bear = first.seeds > 1 and not first.not_finite and any(apart)
    ties = [bear and not told for told in apart]
    return [
        attrs.evolve(first, best=bear and not any(ties), tied=bear and any(ties)),
        *(
            attrs.evolve(row, behind=contrast, adjusted_p=p, tied=tied)
            for row, contrast, p, tied in zip(rest, behind, adjusted, ties, strict=True)
        ),
    ]


def _behind(one: Scores, first: Scores) -> Contrast | None:
    return difference(one, first) if {*one.seeds} & {*first.seeds} else None
