"""Means, medians and their 95 % intervals. scipy does the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values: TypeAlias = Sequence[float] | NDArray[np.float64]


@attrs.frozen
class Estimate:
    """A number and its 95 % interval; `low` and `high` are NaN where there is one value only."""

    value: float
    low: float
    high: float


def mean(values: Values) -> Estimate:
    """The mean with Student's t interval; a value that is not finite leaves no interval."""
    x = np.asarray(values, dtype=float)
    centre = float(x.mean())
    if len(x) < 2 or not np.isfinite(x).all():
        return Estimate(centre, float("nan"), float("nan"))
    half = float(stats.t.ppf(0.975, len(x) - 1) * stats.sem(x))
    return Estimate(centre, centre - half, centre + half)


def median(values: Values) -> Estimate:
    """The median with the interval of order statistics that the binomial test gives."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2 or not np.isfinite(x).all():
        return Estimate(float(np.median(x)), float("nan"), float("nan"))
    interval = stats.quantile_test(x, p=0.5).confidence_interval(0.95)
    return Estimate(float(np.median(x)), float(interval.low), float(interval.high))


def summary(final: Values) -> dict[str, Any]:
    """What a record says of its scores, one per test task."""
    x = np.asarray(final, dtype=float)
    centre = mean(x)
    return {
        "mean": centre.value,
        "median": median(x).value,
        "ci95": [centre.low, centre.high],
        "tasks": len(x),
    }


def over_runs(finals: Sequence[Values]) -> tuple[Estimate, Estimate, str]:
    """Mean and median of a method's runs, and what their intervals are over.

    Of one run: over its test tasks. Of several: the mean over runs of each run's mean (median) over
    tasks, with Student's t interval over runs.
    """
    if len(finals) == 1:
        return mean(finals[0]), median(finals[0]), "test tasks"
    means = [float(np.mean(final)) for final in finals]
    medians = [float(np.median(final)) for final in finals]
    return mean(means), mean(medians), "seeds"
