"""An estimate: a number and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

Values: TypeAlias = Sequence[float] | Array

TRIMMED_SHARE = 0.25
"""The share of the scores that an interquartile mean leaves out at each end."""


@attrs.frozen
class Estimate:
    """A number and its interval; `low` and `high` are NaN where there is no interval."""

    value: float
    low: float
    high: float

    def without_sign(self) -> Estimate:
        """Return the size of a difference, whichever way it points; the interval turns with it."""
        if self.value >= 0:
            return self
        return Estimate(-self.value, -self.high, -self.low)

    def clip_to_range(self, score: str) -> Estimate:
        """Cut off the part of the interval that no mean of this score can reach.

        Student's t knows no bounds: its interval of an accuracy may exceed 1. The true mean never lies in
        the part cut off, so the interval contains it as often as before.

        Args:
            score: the name of the score in the records. A name that is not in `SCORE_RANGES` cuts nothing.
        """
        low, high = np.clip((self.low, self.high), *SCORE_RANGES.get(score, UNBOUNDED))
        return attrs.evolve(self, low=float(low), high=float(high))


UNBOUNDED = (-math.inf, math.inf)

SCORE_RANGES = {
    "accuracy": (0.0, 1.0),
    "cross entropy": (0.0, math.inf),
    "mean squared error": (0.0, math.inf),
    "mse loss": (0.0, math.inf),
}
"""The lowest and the highest possible value of a score, by its name in the records."""
