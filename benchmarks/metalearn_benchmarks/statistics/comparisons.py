"""Compare methods on the same tasks: paired differences and ratios, and Holm's correction.

Seeds and test tasks are both samples, and they are crossed: every seed is tested on every task. The mean of
x[s, i] therefore varies with the seeds, with the tasks, and with a residual. Its variance is
(MS_seeds + MS_tasks − MS_residual) / (S N), with the mean squares of a two-way table without replication.
The degrees of freedom are those of the smaller sample, most often S − 1. This is conservative.
Satterthwaite's degrees of freedom are not: two seeds that are close by chance make them large, and in
simulations only 89 % of such intervals contain the truth. With one seed the interval is Student's t over
tasks and says nothing about other seeds. With one number per seed (wall time) it is Student's t over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from scipy import stats

from metalearn_benchmarks.statistics.estimate import TRIMMED_SHARE, Array, Estimate
from metalearn_benchmarks.statistics.paired_scores import MethodScores, pair_scores
from metalearn_benchmarks.statistics.task_medians import medians_over_tasks
from metalearn_core.errors import UsageError


@attrs.frozen
class Contrast:
    """A difference between two methods with its standard error.

    Args:
        value: the difference, or the logarithm of a ratio.
        standard_error: the standard error; NaN where it is not known.
        degrees_of_freedom: the degrees of freedom of the standard error; infinite where it is 0.
        seeds: the number of seeds that both methods have.
        tasks: the number of test tasks.
        task_error: the part of the standard error that comes from the test tasks; more seeds leave it.
    """

    value: float
    standard_error: float
    degrees_of_freedom: float
    seeds: int
    tasks: int
    task_error: float = 0.0

    def interval(self, confidence: float = 0.95) -> Estimate:
        """Return the difference with Student's t interval."""
        half = float(stats.t.ppf((1 + confidence) / 2, self.degrees_of_freedom)) * self.standard_error
        return Estimate(self.value, self.value - half, self.value + half)

    def p_value(self, null: float = 0.0) -> float:
        """Return the p-value of the two-sided test that the difference is `null`; NaN without an error."""
        away = abs(self.value - null)
        if self.standard_error == 0:
            return float(away == 0)
        return float(2 * stats.t.sf(away / self.standard_error, self.degrees_of_freedom))


def difference(one: MethodScores, other: MethodScores) -> Contrast:
    """Return the mean of `one` minus the mean of `other`, paired by seed and task."""
    a, b = pair_scores(one, other)
    return two_way_mean(a - b)


def log_ratio(one: MethodScores, other: MethodScores) -> Contrast:
    """Return ln(mean of `one` / mean of `other`), paired by seed and task.

    The standard error follows from the delta method.

    Raises:
        UsageError: a mean is not above 0.
    """
    a, b = pair_scores(one, other)
    if a.mean() <= 0 or b.mean() <= 0:
        raise UsageError(
            f"{one.method} and {other.method}: a ratio needs means above 0,"
            f" got {a.mean():.4g} and {b.mean():.4g}"
        )
    relative = two_way_mean(a / a.mean() - b / b.mean())
    return attrs.evolve(relative, value=float(np.log(a.mean() / b.mean())))


def unpaired_difference(one: Array, other: Array) -> Contrast:
    """Return the mean of `one` minus that of `other`, `[seeds, tasks]` each, tested on different tasks."""
    sides = [two_way_mean(one), two_way_mean(other)]
    squares = [side.standard_error**2 for side in sides]
    error = math.sqrt(sum(squares))
    return Contrast(
        value=sides[0].value - sides[1].value,
        standard_error=error,
        degrees_of_freedom=_satterthwaite(squares, [side.degrees_of_freedom for side in sides]),
        seeds=min(side.seeds for side in sides),
        tasks=min(side.tasks for side in sides),
        task_error=math.hypot(*(side.task_error for side in sides)),
    )


def typical_difference(one: MethodScores, other: MethodScores) -> Contrast:
    """Return the typical difference between the seeds' medians, see `typical_of_draws`."""
    (a, drawn_a), (b, drawn_b) = map(medians_over_tasks, pair_scores(one, other))
    with np.errstate(invalid="ignore"):  # of two infinities there is no difference
        return typical_of_draws(a - b, drawn_a - drawn_b, one.values.shape[1])


def typical_log_ratio(one: MethodScores, other: MethodScores) -> Contrast:
    """Return the typical logarithm of the ratio of the seeds' medians, see `typical_of_draws`.

    Raises:
        UsageError: a score is not above 0.
    """
    first, second = pair_scores(one, other)
    if min(first.min(), second.min()) <= 0:
        raise UsageError(f"{one.method} and {other.method}: a ratio needs scores above 0")
    (a, drawn_a), (b, drawn_b) = map(medians_over_tasks, (first, second))
    with np.errstate(invalid="ignore"):
        return typical_of_draws(np.log(a / b), np.log(drawn_a / drawn_b), first.shape[1])


def typical_over_seeds(numbers: Array) -> Contrast:
    """Return the interquartile mean of a number for each seed, which no single failed run can decide."""
    return typical_of_draws(numbers, numbers[None].repeat(2, axis=0), 1)


def typical_of_draws(numbers: Array, drawn: Array, tasks: int) -> Contrast:
    """Return the interquartile mean of a number for each seed, with its standard error.

    The standard error has two parts. The part of the seeds is Yuen's (1974), from the winsorised variance,
    with the degrees of freedom of the middle half. The part of the test tasks, which all seeds share, is the
    standard deviation over bootstrap draws of the tasks. A single seed has the second part alone.

    Args:
        numbers: the numbers `[seeds]`.
        drawn: the same numbers of each draw of the test tasks, `[draws, seeds]`.
        tasks: the number of test tasks.
    """
    seeds = len(numbers)
    value, cut = middle_mean(numbers), int(TRIMMED_SHARE * seeds)
    if seeds * tasks == 1 or not (np.isfinite(numbers).all() and np.isfinite(drawn).all()):
        return Contrast(value if math.isfinite(value) else math.nan, math.nan, math.nan, seeds, tasks)
    task_error = float(np.std(middle_mean(drawn), ddof=1))
    seed_error, freedom = 0.0, float(tasks - 1)
    if seeds > 1:
        ranked = np.sort(numbers)
        winsorised = np.clip(numbers, ranked[cut], ranked[seeds - cut - 1])
        seed_error = float(winsorised.std(ddof=1)) / ((1 - 2 * cut / seeds) * math.sqrt(seeds))
        freedom = float(seeds - 2 * cut - 1)
    error = math.hypot(seed_error, task_error)
    return Contrast(value, error, freedom if error else math.inf, seeds, tasks, task_error)


def middle_mean(numbers: Array) -> Any:
    """Return `scipy.stats.trim_mean` along the last axis, without its checks: they take longer than it."""
    seeds = numbers.shape[-1]
    cut = int(TRIMMED_SHARE * seeds)
    kept = np.partition(numbers, (cut, seeds - cut - 1))[..., cut : seeds - cut]
    return np.where(np.isnan(numbers).any(-1), np.nan, kept.mean(-1))[()]


def two_way_mean(x: Array) -> Contrast:
    """Return the mean of x `[seeds, tasks]` with its standard error over both, see the module's docstring.

    Where the sum of mean squares is below the mean square of seeds or of tasks, that one is used instead. A
    value that is not finite leaves the standard error unknown.
    """
    seeds, tasks = x.shape
    centre = float(x.mean())
    if not np.isfinite(x).all() or x.size < 2:
        return Contrast(centre if math.isfinite(centre) else math.nan, math.nan, math.nan, seeds, tasks)
    of_seeds, of_tasks = x.mean(1) - centre, x.mean(0) - centre
    if seeds == 1 or tasks == 1:
        own = of_tasks if seeds == 1 else of_seeds
        error = math.sqrt(float(own @ own) / (len(own) - 1) / len(own))
        freedom = float(len(own) - 1) if error else math.inf
        return Contrast(centre, error, freedom, seeds, tasks, error if seeds == 1 else 0.0)
    left = x - centre - of_seeds[:, None] - of_tasks
    free = (seeds - 1, tasks - 1, (seeds - 1) * (tasks - 1))
    sums = (tasks * float(of_seeds @ of_seeds), seeds * float(of_tasks @ of_tasks), float((left**2).sum()))
    squares = [total / count for total, count in zip(sums, free, strict=True)]
    variance = max(squares[0] + squares[1] - squares[2], squares[0], squares[1])
    error = math.sqrt(variance / x.size)
    freedom = float(min(free)) if error else math.inf
    only_tasks = math.sqrt(max(squares[1] - squares[2], 0.0) / x.size)
    return Contrast(centre, error, freedom, seeds, tasks, only_tasks)


def _satterthwaite(parts: Sequence[float], freedoms: Sequence[float]) -> float:
    """The degrees of freedom of a sum of mean squares (Satterthwaite, 1946)."""
    spread = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    return sum(parts) ** 2 / spread if spread else math.inf


def holm(p_values: Sequence[float], among: int = 0) -> list[float]:
    """Return p-values adjusted for multiple comparisons (Holm, 1979).

    Args:
        p_values: the p-values. NaN stays NaN and does not count as a comparison.
        among: the number of comparisons that these were selected from, where that is larger.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    many = max(among, len(order))
    adjusted, least = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        least = max(least, min(1.0, (many - rank) * p))
        adjusted[place] = least
    return adjusted
