"""What a result table is: a row for each method of a setting, and the sentences that stand below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import attrs

from metalearn_benchmarks.records.row_names import compact_title, title_without_steps
from metalearn_benchmarks.report.numbers import NO_ESTIMATE
from metalearn_benchmarks.statistics.comparisons import Contrast
from metalearn_benchmarks.statistics.estimate import Estimate
from metalearn_benchmarks.statistics.headline import headline_name

MIN_BOOTSTRAP_SEEDS = 10
"""With fewer seeds than these, the caption warns that bootstrap intervals are too narrow."""


LONGEST_REFERENCE = 20
"""The most letters of a title in the head of a column; a longer one would make it wider than its numbers."""


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
        reference: whether the rows of its group are compared with this one: the method that was chosen to
            compare with, or the first row.
        difference: the headline of the paired differences from the reference; None for the reference, and
            where the two have no seed in common.
        differs: whether `difference` is told from chance, all comparisons with the reference allowed for.
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
    reference: bool = False
    difference: Contrast | None = None
    differs: bool = False
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
        small: a line where the rows were trained for less than the paper's scale; then their order means
            little.
        conditions: a line for each rule that has the conditions of another method.
    """

    experiment: str
    setting: str
    score: str
    higher_is_better: bool
    rows: list[Row]
    interval_method: str = "t"
    small: Sequence[str] = ()
    conditions: Sequence[str] = ()

    @property
    def notes(self) -> list[str]:
        """What the rows have to be read with, a line each."""
        return [*self.small, *self.conditions]

    @property
    def headline(self) -> str:
        """The name of the headline."""
        return headline_name(self.score, self.higher_is_better)

    @property
    def groups(self) -> list[list[Row]]:
        """The rows that are compared with each other: all, or those of each T."""
        return [list(group) for _, group in groupby(self.rows, lambda row: row.group)]

    @property
    def reference(self) -> str:
        """What differences are taken from: the title of a row, or its place where titles vary."""
        chosen = [(rows[0], row) for rows in self.groups for row in rows if row.reference]
        titles = {compact_title(title_without_steps(row.title)) for _, row in chosen}
        if len(titles) == 1 and len(title := titles.pop()) <= LONGEST_REFERENCE:
            return title
        if all(first is row for first, row in chosen):
            return "the first"
        return "the reference"

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
            paired += f", and from {self.reference} at the same T"
        if any(row.best or row.tied for row in self.rows):
            return [
                f"{paired}. In bold: the best {self.headline}; ≈: rows that cannot be told from it at 95 %"
                " (Holm's correction for all pairs of rows)."
            ]
        if all(row.seeds == 1 for row in self.rows):
            return [f"{paired}. No row is marked best: that takes several seeds."]
        return [f"{paired}. No row is marked best: the records do not say which is."]
