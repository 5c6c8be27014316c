"""Numbers and intervals as text for the tables."""

from __future__ import annotations

import math

from metalearn_benchmarks.statistics.comparisons import Contrast
from metalearn_benchmarks.statistics.estimate import Estimate

NO_ESTIMATE = Estimate(math.nan, math.nan, math.nan)


def format_number(value: float) -> str:
    """Return a number with three decimals, or four digits where it is 100 or more."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def format_interval(estimate: Estimate | Contrast | None) -> str:
    """Return the 95 % interval as `[low, high]`, or a dash where there is none."""
    bounds = estimate.interval() if isinstance(estimate, Contrast) else estimate
    if bounds is None or bounds.low != bounds.low:
        return "–"
    return f"[{format_number(bounds.low)}, {format_number(bounds.high)}]"
