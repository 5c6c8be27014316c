"""Numbers and intervals as people read them."""

from __future__ import annotations

import math

from metalearn_benchmarks.statistics.comparisons import Contrast
from metalearn_benchmarks.statistics.estimate import Estimate

NOTHING = Estimate(math.nan, math.nan, math.nan)


def number(value: float) -> str:
    """Three decimals, fewer where the number is large."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def interval(estimate: Estimate | Contrast | None) -> str:
    """`[low, high]`, or a dash where there is none."""
    found = estimate.interval() if isinstance(estimate, Contrast) else estimate
    if found is None or found.low != found.low:
        return "–"
    return f"[{number(found.low)}, {number(found.high)}]"
