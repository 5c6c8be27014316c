"""Means, medians, interquartile means and their 95 % intervals. scipy does what scipy has.

A score that is not finite counts as the worst one: no mean and no interval of a mean is left then, but a
median and an interquartile mean are, as long as such scores are few.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from scipy import stats

from metalearn_benchmarks.statistics.estimate import MIDDLE, Array, Estimate, Values
from metalearn_core.errors import unknown

WAYS = ("t", "bootstrap", "paper")
"""How intervals are made: see `summarise`."""


@attrs.frozen
class Summary:
    """What a method's runs come to.

    Args:
        over: what the intervals are over: "test tasks", "seeds", or "seeds and test tasks".
        left_out: of the mean, the median and the interquartile mean: how many runs the paper's way leaves
            out as outliers.
        not_finite: how many scores are no finite number.
    """

    mean: Estimate
    median: Estimate
    interquartile_mean: Estimate
    over: str
    left_out: tuple[int, int, int] = (0, 0, 0)
    not_finite: int = 0

    def within(self, score: str) -> Summary:
        """Of scores of this name: see `Estimate.within`."""
        cut = {name: getattr(self, name).within(score) for name in ("mean", "median", "interquartile_mean")}
        return attrs.evolve(self, **cut)


def mean(values: Values) -> Estimate:
    """The mean with Student's t interval; a value that is not finite leaves no interval."""
    x = np.asarray(values, dtype=float)
    centre = float(x.mean())
    if len(x) < 2 or not np.isfinite(x).all():
        return _without_interval(centre)
    half = float(stats.t.ppf(0.975, len(x) - 1) * stats.sem(x))
    return Estimate(centre, centre - half, centre + half)


def median(values: Values) -> Estimate:
    """The median with the interval of order statistics that the binomial test gives."""
    x = np.asarray(values, dtype=float)
    centre = float(np.median(x))
    if len(x) < 2 or math.isnan(centre):
        return _without_interval(centre)
    interval = stats.quantile_test(x, p=0.5).confidence_interval(0.95)
    return Estimate(centre, float(interval.low), float(interval.high))


def interquartile_mean(values: Values) -> Estimate:
    """The mean of the middle half, with the t interval of a trimmed mean (Tukey and McLaughlin, 1963)."""
    x = np.asarray(values, dtype=float)
    centre = float(stats.trim_mean(x, MIDDLE))
    if len(x) < 4 or not math.isfinite(centre):
        return _without_interval(centre)
    low, high = stats.mstats.trimmed_mean_ci(x, limits=(MIDDLE, MIDDLE), alpha=0.05)
    return Estimate(centre, float(low), float(high))


def summary(final: Values, score: str) -> dict[str, Any]:
    """What a record says of its scores of this name, one per test task."""
    x = np.asarray(final, dtype=float)
    centre = mean(x).within(score)
    return {
        "mean": centre.value,
        "median": median(x).value,
        "ci95": [centre.low, centre.high],
        "tasks": len(x),
    }


def summarise(scores: Array, way: str = "t", *, score: str = "", higher_is_better: bool = False) -> Summary:
    """Mean, median and interquartile mean of a method, from its scores `[seeds, tasks]`.

    Of several runs each number is the mean over runs of what each run has over its test tasks. `way`:

    - `"t"`: Student's t interval over runs, so the test tasks are taken as they are. Of one run, and of
      runs that are all the same since nothing in them is random: over its test tasks. Without what no
      mean of scores of the name `score` can be: see `Estimate.within`.
    - `"bootstrap"`: BCa intervals; seeds and test tasks are both drawn again: see `bootstrap`.
    - `"paper"`: as the authors' program does it. Runs outside [q1 − 1.5 IQR, q3 + 1.5 IQR] are left out,
      and the half-width is 1.96 sd / √n (sd with n − 1). The paper's "median" is the median so made. One
      run has no interval.

    Raises UsageError for another way.
    """
    if way not in WAYS:
        raise unknown("way of statistics", way, WAYS)
    not_finite = int(np.count_nonzero(~np.isfinite(scores)))
    worst = -math.inf if higher_is_better else math.inf
    ranked = np.where(np.isfinite(scores), scores, worst)
    over, left_out = "seeds", (0, 0, 0)
    if way == "bootstrap":
        from metalearn_benchmarks.statistics.bootstrap import bootstrap

        over = "test tasks" if len(scores) == 1 else "seeds and test tasks"
        estimates = bootstrap(ranked)
    elif way == "t" and (ranked == ranked[0]).all():
        over, run = "test tasks", ranked[0]
        estimates = _of_finite(mean(run)), median(run), interquartile_mean(run)
    else:
        made = [_OVER_RUNS[way](x) for x in _of_each_run(ranked)]
        estimates, left_out = (made[0][0], made[1][0], made[2][0]), (made[0][1], made[1][1], made[2][1])
    found = Summary(*estimates, over=over, left_out=left_out, not_finite=not_finite)
    return found.within(score) if way == "t" else found


def _of_each_run(scores: Array) -> list[Array]:
    """Mean, median and interquartile mean over tasks of each seed, `[seeds]` each."""
    trimmed = np.asarray(stats.trim_mean(scores, MIDDLE, axis=1))
    return [scores.mean(1), np.asarray(np.median(scores, axis=1)), trimmed]


def _with_t(values: Array) -> tuple[Estimate, int]:
    return _of_finite(mean(values)), 0


def _as_the_paper(values: Array) -> tuple[Estimate, int]:
    """Mean and normal interval of what is no outlier, and how many are; nothing of what is not finite."""
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


_OVER_RUNS: dict[str, Callable[[Array], tuple[Estimate, int]]] = {"t": _with_t, "paper": _as_the_paper}


def _without_interval(value: float) -> Estimate:
    return Estimate(value, math.nan, math.nan)


def _of_finite(estimate: Estimate) -> Estimate:
    """A mean with an infinity in it is no number."""
    return estimate if math.isfinite(estimate.value) else _without_interval(math.nan)
