"""The result table of a setting: a row for each method, computed from records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import attrs

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.grouping import steps_of_groups
from metalearn_benchmarks.report.numbers import NO_ESTIMATE
from metalearn_benchmarks.report.table_notes import table_notes
from metalearn_benchmarks.statistics.comparisons import Contrast, holm
from metalearn_benchmarks.statistics.estimate import Estimate
from metalearn_benchmarks.statistics.headline import count_never_learned, headline_difference, headline_name
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
        headline: the number that orders the rows, see `statistics.headline`.
        mean: the mean score.
        median: the median score.
        intervals_over: what was sampled: "test tasks", "seeds", or "seeds and test tasks".
        steps: the number T of inner steps.
        seeds: the number of runs.
        tasks: the number of test tasks.
        seconds: the mean wall time of a run.
        diverged: the number of runs that diverged.
        interquartile_mean: the interquartile mean of the score.
        best: whether the headline is significantly better than that of every other row of its group.
        tied: whether other rows differ significantly from the best one, but this one does not.
        difference_from_best: the headline of the paired differences from the first row of the group; None
            for that row, and where the two have no seed in common.
        adjusted_p: the p-value of `difference_from_best`, adjusted for all comparisons of the group; NaN
            where there is none.
        apart: whether the row is significantly behind the first row of its group.
        outliers: the number of runs that `"paper"` leaves out of the mean, the median and the interquartile
            mean.
        not_finite: the number of scores that are not finite; they count as the worst.
        never_learned: the number of runs that never learned; None where that is not known.
        group: the T at which the row is compared, where T is an axis of the experiment.
    """

    method: str
    title: str
    headline: Estimate
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
    apart: bool = False
    outliers: tuple[int, int, int] = (0, 0, 0)
    not_finite: int = 0
    never_learned: int | None = None
    group: int = 0


@attrs.frozen
class ResultTable:
    """The results of one setting.

    Args:
        experiment: the name of the experiment.
        setting: the name of the setting.
        score: the name of the score.
        higher_is_better: whether a higher score is better.
        rows: a row for each method, by group and then by headline, the best one first.
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
    def headline(self) -> str:
        """The name of the headline."""
        return headline_name(self.score, self.higher_is_better)

    @property
    def groups(self) -> list[list[Row]]:
        """The rows that are compared with each other: all, or those of each T."""
        return [list(group) for _, group in groupby(self.rows, lambda row: row.group)]

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
            *self._headline_notes(),
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

    def _headline_notes(self) -> list[str]:
        if self.higher_is_better or self.interval_method == "paper":
            return []
        return [
            "The typical error is the mean over the middle half of the runs, each with its median over test"
            " tasks."
        ]

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
        if len(self.groups) > 1:
            paired += ", and from the first row of the same T"
        if any(row.best or row.tied for row in self.rows):
            return [
                f"{paired}. In bold: the best {self.headline}; ≈: rows that cannot be told from it at 95 %"
                " (Holm's correction for all pairs of rows)."
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
        table = ResultTable(experiment, setting, score, up, rows, interval_method)
        marked = [row for group in table.groups for row in _mark_best(group, scores, up)]
        second = marked[1].difference_from_best if len(marked) > 1 else None
        notes = table_notes(runs, [row.title for row in marked], second)
        found.append(attrs.evolve(table, rows=marked, notes=notes))
    return found


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


def _mark_best(rows: list[Row], scores: dict[str, MethodScores], up: bool) -> list[Row]:
    """The rows, best first, with differences from the best, and with marks where the tests allow them.

    A row whose headline has no value is worse than one that has, and needs no test. With a single seed
    nothing is marked, since it says nothing about other seeds.
    """
    first, rest = rows[0], rows[1:]
    differences = [_paired_difference(scores[row.method], scores[first.method], up) for row in rest]
    p_values = [c.p_value() if c is not None and c.seeds > 1 else math.nan for c in differences]
    # the first row was chosen as the best of these: any pair of rows could have been tested here
    adjusted = holm(p_values, among=math.comb(len(rows), 2))
    known = first.seeds > 1 and not math.isnan(first.headline.value)
    apart = [
        known and (math.isnan(row.headline.value) or p < SIGNIFICANCE_LEVEL)
        for row, p in zip(rest, adjusted, strict=True)
    ]
    ties = [any(apart) and not behind for behind in apart]
    return [
        attrs.evolve(first, best=any(apart) and not any(ties), tied=any(apart) and any(ties)),
        *(
            attrs.evolve(row, difference_from_best=contrast, adjusted_p=p, tied=tied, apart=behind)
            for row, contrast, p, tied, behind in zip(rest, differences, adjusted, ties, apart, strict=True)
        ),
    ]


def _paired_difference(one: MethodScores, first: MethodScores, up: bool) -> Contrast | None:
    if not {*one.seeds} & {*first.seeds}:
        return None
    return headline_difference(one, first, higher_is_better=up)
