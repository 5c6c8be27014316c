"""What a statistic comes to: a number and its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

Values: TypeAlias = Sequence[float] | Array

MIDDLE = 0.25
"""The share of scores that an interquartile mean leaves out at each end."""


@attrs.frozen
class Estimate:
    """A number and its 95 % interval; `low` and `high` are NaN where there is no interval."""

    value: float
    low: float
    high: float

    def within(self, score: str) -> Estimate:
        """Of a mean of scores of this name: the interval without what no such mean can be.

        Student's t knows nothing of bounds. What is cut off cannot be the truth, so the interval holds it as
        often as before.
        """
        low, high = np.clip((self.low, self.high), *POSSIBLE.get(score, ANYTHING))
        return attrs.evolve(self, low=float(low), high=float(high))


ANYTHING = (-math.inf, math.inf)

POSSIBLE = {
    "accuracy": (0.0, 1.0),
    "cross entropy": (0.0, math.inf),
    "mean squared error": (0.0, math.inf),
    "mse loss": (0.0, math.inf),
}
"""The least and the most that a score can be, by the name that records have of it."""
