"""The headline of a method: the one number by which tables order it, and how many of its runs never learned.

Of errors it is the typical error. Each run counts with its median over the test tasks, since a few hard tasks
decide a mean. The method has the mean over the middle half of its runs, since a single run that never learned
decides the mean over all of them. Such runs are not hidden by this: their count stands beside the number. Of
fewer than four runs nothing is left out. Of scores that grow, such as accuracies, the headline is the mean
over runs and tasks: they are bounded, so that one run moves it little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.comparisons import (
    Contrast,
    difference,
    middle_mean,
    typical_difference,
    typical_of_draws,
)
from metalearn_benchmarks.statistics.estimate import Array, Estimate
from metalearn_benchmarks.statistics.paired_scores import MethodScores
from metalearn_benchmarks.statistics.task_medians import medians_over_tasks

SINE_CONSTANT = {"mean": 3.9, "median": 3.0}
"""A run on sine waves whose mean and median error are above these predicts a constant, or worse: of the
constant 0 the mean is E[A²] / 2 = 4.25."""
OVER_CHANCE = 1.1
"""A run whose accuracy is below this many times that of guessing never learned."""


def headline_name(score: str, higher_is_better: bool) -> str:
    """Return what the headline is called: "typical error", or "mean" with the name of the score."""
    return f"mean {score}" if higher_is_better else "typical error"


def number_of_run(final: Array, higher_is_better: bool) -> float:
    """Return the number with which a run counts: its median error, or its mean of a score that grows."""
    return float(final.mean() if higher_is_better else np.median(final))


def headline_difference(one: MethodScores, other: MethodScores, *, higher_is_better: bool) -> Contrast:
    """Return the headline of the paired difference of two methods, `one` minus `other`.

    Raises:
        UsageError: the test tasks differ, or no seed is in both.
    """
    return (difference if higher_is_better else typical_difference)(one, other)


def typical_error(scores: Array) -> Contrast:
    """Return the typical error of errors `[seeds, tasks]`."""
    return typical_of_draws(*medians_over_tasks(scores), scores.shape[1])


def typical_error_by_bootstrap(scores: Array) -> Estimate:
    """Return the typical error with the percentile interval over draws of seeds and of test tasks."""
    medians, drawn = medians_over_tasks(scores)
    value, seeds = float(middle_mean(medians)), len(medians)
    if not math.isfinite(value) or scores.size == 1:
        return Estimate(value if math.isfinite(value) else math.nan, math.nan, math.nan)
    generator, again = np.random.default_rng([3, seeds]), 10
    places = generator.integers(seeds, size=(again * len(drawn), seeds))
    means = middle_mean(np.take_along_axis(np.tile(drawn, (again, 1)), places, 1))
    method: Literal["linear", "closest_observation"]
    method = "linear" if np.isfinite(means).all() else "closest_observation"
    low, high = np.quantile(means, (0.025, 0.975), method=method)
    return Estimate(value, float(low), float(high))


def never_learned(record: Record) -> bool | None:
    """Return whether a run answers no better than a constant does; None where that is not known.

    It is known of sine waves, and of accuracies where the family's options name the number of ways.
    """
    scores, family = record.final, record.cell["family"]
    if family["name"] == "sine" and not record.higher_is_better:
        scores = np.where(np.isfinite(scores), scores, np.inf)
        return bool(scores.mean() > SINE_CONSTANT["mean"] and np.median(scores) > SINE_CONSTANT["median"])
    ways = family.get("options", {}).get("ways")
    if record.score == "accuracy" and isinstance(ways, int) and ways > 1:
        return not bool(scores.mean() >= OVER_CHANCE / ways)
    return None


def count_never_learned(runs: Sequence[Record]) -> int | None:
    """Return how many of these runs never learned; None where that is not known of one."""
    found = [never_learned(run) for run in runs]
    return None if None in found else sum(map(bool, found))
