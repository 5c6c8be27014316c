"""An effect: a difference, a ratio or a growth, with its uncertainty and what is missing."""

from __future__ import annotations

import math

import attrs
import numpy as np
from scipy import stats

from metalearn_benchmarks.statistics.comparisons import (
    Contrast,
)
from metalearn_benchmarks.statistics.estimate import Estimate
from metalearn_benchmarks.statistics.growth import SpreadGrowth

MAX_ADVISED_SEEDS = 1000
"""The most seeds that are advised. If these would not decide, the effect lies at the threshold."""


@attrs.frozen(eq=False)
class Effect:
    """An effect with its uncertainty.

    Args:
        label: what the effect is, in words.
        contrast: the effect, or its logarithm where it is a ratio; None where it cannot be computed.
        is_ratio: whether it is a ratio.
        missing: a line for each thing that is missing before the effect may decide anything.
        methods: the methods and the setting that more seeds would be run for, in words.
    """

    label: str
    contrast: Contrast | SpreadGrowth | None
    is_ratio: bool
    missing: tuple[str, ...]
    methods: str = ""

    @property
    def seeds(self) -> int:
        """The number of seeds that it is computed from."""
        return 0 if self.contrast is None else self.contrast.seeds

    @property
    def tasks(self) -> int:
        """The number of test tasks that it is computed from."""
        return 0 if self.contrast is None else self.contrast.tasks

    def estimate(self, confidence: float) -> Estimate | None:
        """Return the effect with its interval, a ratio as such and not as a logarithm; None without data."""
        if self.contrast is None:
            return None
        interval = self.contrast.interval(confidence)
        if not self.is_ratio:
            return interval
        low, value, high = (float(np.exp(x)) for x in (interval.low, interval.value, interval.high))
        return Estimate(value, low, high)

    def advice(self, least: float, most: float, confidence: float) -> list[str]:
        """Say how many more seeds would move the interval off the threshold, if the effect stays the same.

        Args:
            least: the lower end of the claimed range.
            most: its upper end.
            confidence: the confidence of the interval.
        """
        contrast = self.contrast
        if not isinstance(contrast, Contrast) or not math.isfinite(contrast.standard_error):
            return [f"{self.label}: more seeds of {self.methods}"]
        bounds = [math.log(b) if self.is_ratio and b > 0 else b for b in (least, most)]
        distance = min(abs(contrast.value - bound) for bound in bounds)
        seed_variance = max(contrast.standard_error**2 - contrast.task_error**2, 0.0) * contrast.seeds
        for count in range(contrast.seeds + 1, MAX_ADVISED_SEEDS):
            t = float(stats.t.ppf((1 + confidence) / 2, count - 1))
            if t * math.sqrt(contrast.task_error**2 + seed_variance / count) < distance:
                more = f"about {count - contrast.seeds} more seeds of {self.methods}"
                return [f"{self.label}: {more}, if the effect stays"]
        if contrast.task_error > 0.05 * contrast.standard_error and 2 * contrast.task_error >= distance:
            return [f"{self.label}: more test tasks than {contrast.tasks}"]
        return [
            f"{self.label}: the effect lies at the threshold; {MAX_ADVISED_SEEDS} seeds would hardly"
            " settle it"
        ]
