"""Headlines, means, medians, interquartile means and their 95 % intervals.

A score that is not finite counts as the worst one. Then the mean has no value and no interval. The median
and the interquartile mean still have both, as long as such scores are few.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from scipy import stats

from metalearn_benchmarks.statistics.estimate import TRIMMED_SHARE, Array, Estimate, Values
from metalearn_benchmarks.statistics.headline import typical_error, typical_error_by_bootstrap
from metalearn_core.errors import unknown

INTERVAL_METHODS = ("t", "bootstrap", "paper")
"""The ways to make intervals, see `summarise_method`."""


@attrs.frozen
class Summary:
    """The headline, the mean, the median and the interquartile mean of a method, with their intervals.

    Args:
        headline: the number by which tables order methods, see `headline`.
        mean: the mean.
        median: the median.
        interquartile_mean: the mean of the middle half.
        intervals_over: what was sampled: "test tasks", "seeds", or "seeds and test tasks".
        outliers: the number of runs that `"paper"` leaves out as outliers of the mean, of the median and of
            the interquartile mean.
        not_finite: the number of scores that are not finite.
    """

    headline: Estimate
    mean: Estimate
    median: Estimate
    interquartile_mean: Estimate
    intervals_over: str
    outliers: tuple[int, int, int] = (0, 0, 0)
    not_finite: int = 0

    def clip_to_range(self, score: str) -> Summary:
        """Cut off what no mean of this score can reach, see `Estimate.clip_to_range`."""
        cut = {
            name: getattr(self, name).clip_to_range(score)
            for name in ("headline", "mean", "median", "interquartile_mean")
        }
        return attrs.evolve(self, **cut)


def mean(values: Values) -> Estimate:
    """Return the mean with Student's t interval; there is none where a value is not finite."""
    x = np.asarray(values, dtype=float)
    centre = float(x.mean())
    if len(x) < 2 or not np.isfinite(x).all():
        return _without_interval(centre)
    half = float(stats.t.ppf(0.975, len(x) - 1) * stats.sem(x))
    return Estimate(centre, centre - half, centre + half)


def median(values: Values) -> Estimate:
    """Return the median with the interval of order statistics that the binomial test gives."""
    x = np.asarray(values, dtype=float)
    centre = float(np.median(x))
    if len(x) < 2 or math.isnan(centre):
        return _without_interval(centre)
    interval = stats.quantile_test(x, p=0.5).confidence_interval(0.95)
    return Estimate(centre, float(interval.low), float(interval.high))


def interquartile_mean(values: Values) -> Estimate:
    """Return the mean of the middle half with its t interval (Tukey and McLaughlin, 1963)."""
    x = np.asarray(values, dtype=float)
    centre = float(stats.trim_mean(x, TRIMMED_SHARE))
    if len(x) < 4 or not math.isfinite(centre):
        return _without_interval(centre)
    low, high = stats.mstats.trimmed_mean_ci(x, limits=(TRIMMED_SHARE, TRIMMED_SHARE), alpha=0.05)
    return Estimate(centre, float(low), float(high))


def summarise_run(final: Values, score: str) -> dict[str, Any]:
    """Summarise one run for its record.

    Args:
        final: the score after T steps on each test task.
        score: the name of the score.
    """
    x = np.asarray(final, dtype=float)
    centre = mean(x).clip_to_range(score)
    return {
        "mean": centre.value,
        "median": median(x).value,
        "ci95": [centre.low, centre.high],
        "tasks": len(x),
    }


def summarise_method(
    scores: Array, interval_method: str = "t", *, score: str = "", higher_is_better: bool = False
) -> Summary:
    """Return the headline, the mean, the median and the interquartile mean of a method, with 95 % intervals.

    Each run has a mean, a median and an interquartile mean over its test tasks. The method's number is the
    mean of these over its runs.

    Args:
        scores: the scores `[seeds, tasks]`.
        interval_method: how the intervals are made:

            - `"t"`: Student's t over seeds; the test tasks count as given. With one run, or where all runs
              have the same scores, Student's t over test tasks. Intervals are cut to what the score can be,
              see `Estimate.clip_to_range`.
            - `"bootstrap"`: BCa intervals that resample seeds and test tasks, see `bootstrap_estimates`.
            - `"paper"`: as the authors' program makes them. It leaves out runs outside
              [q1 − 1.5 IQR, q3 + 1.5 IQR]; the half-width is 1.96 sd / √n (sd with n − 1). The paper's
              "median" is the median made in this interval_method. One run has no interval.
        score: the name of the score, which bounds the intervals of `"t"`.
        higher_is_better: whether a higher score is better; a score that is not finite counts as the worst.

    Raises:
        UsageError: there is no such `interval_method`.
    """
    if interval_method not in INTERVAL_METHODS:
        raise unknown("way of statistics", interval_method, INTERVAL_METHODS)
    not_finite = int(np.count_nonzero(~np.isfinite(scores)))
    worst = -math.inf if higher_is_better else math.inf
    ranked = np.where(np.isfinite(scores), scores, worst)
    intervals_over, outliers = "seeds", (0, 0, 0)
    if interval_method == "bootstrap":
        from metalearn_benchmarks.statistics.bootstrap import bootstrap_estimates

        intervals_over = "test tasks" if len(scores) == 1 else "seeds and test tasks"
        estimates = bootstrap_estimates(ranked)
    elif interval_method == "t" and (ranked == ranked[0]).all():
        intervals_over, run = "test tasks", ranked[0]
        estimates = _nan_if_infinite(mean(run)), median(run), interquartile_mean(run)
    else:
        by_statistic = [_INTERVALS_OVER_SEEDS[interval_method](x) for x in _statistics_by_seed(ranked)]
        estimates = (by_statistic[0][0], by_statistic[1][0], by_statistic[2][0])
        outliers = (by_statistic[0][1], by_statistic[1][1], by_statistic[2][1])
    central = _headline(ranked, estimates, interval_method, higher_is_better)
    summary = Summary(
        central, *estimates, intervals_over=intervals_over, outliers=outliers, not_finite=not_finite
    )
    return summary.clip_to_range(score) if interval_method == "t" else summary


def _headline(
    scores: Array, made: tuple[Estimate, Estimate, Estimate], interval_method: str, higher_is_better: bool
) -> Estimate:
    """The typical error, or the mean of a score that grows; the paper's way has the median it prints."""
    if higher_is_better:
        return made[0]
    if interval_method == "paper":
        return made[1]
    if interval_method == "bootstrap":
        return typical_error_by_bootstrap(scores)
    if (scores == scores[0]).all():
        return made[1]
    return typical_error(scores).interval()


def _statistics_by_seed(scores: Array) -> list[Array]:
    """The mean, median and interquartile mean over tasks of each seed, `[seeds]` each."""
    trimmed = np.asarray(stats.trim_mean(scores, TRIMMED_SHARE, axis=1))
    return [scores.mean(1), np.asarray(np.median(scores, axis=1)), trimmed]


def _t_interval(values: Array) -> tuple[Estimate, int]:
    return _nan_if_infinite(mean(values)), 0


def _paper_interval(values: Array) -> tuple[Estimate, int]:
    """The mean and the normal interval of all that are no outliers, and the number of outliers."""
    if not np.isfinite(values).all():
        return _without_interval(math.nan), 0
    low, high = np.quantile(values, [0.25, 0.75])
    reach = 1.5 * (high - low)
    kept = values[(values >= low - reach) & (values <= high + reach)]
    centre = float(kept.mean())
    if len(kept) < 2:
        return _without_interval(centre), len(values) - len(kept)
    half = 1.96 * float(stats.sem(kept))
    return Estimate(centre, centre - half, centre + half), len(values) - len(kept)


_INTERVALS_OVER_SEEDS: dict[str, Callable[[Array], tuple[Estimate, int]]] = {
    "t": _t_interval,
    "paper": _paper_interval,
}


def _without_interval(value: float) -> Estimate:
    return Estimate(value, math.nan, math.nan)


def _nan_if_infinite(estimate: Estimate) -> Estimate:
    """Replace an infinite mean by NaN."""
    return estimate if math.isfinite(estimate.value) else _without_interval(math.nan)
