"""By what the spread over seeds grows when T doubles: a permutation test, and the interval that it makes.

Seeds that never learn lie far from all others, and one of them decides a standard deviation: no error of it
that is estimated from the same seeds holds what it says. Whether such seeds come at random over T can be
asked without one. If spread does not depend on T, a seed's deviations from the medians of its T may as well
have come at any other T; the growth that is found is held against those of deviations that have been dealt
anew. Growths that are not refuted so are the interval.

A seed draws the same tasks in every row, and where it is stuck in one it often is in others: what it has at
one T is dealt as a whole, in all rows that have it.

Simulated with none to a tenth of the seeds stuck, in their row or in all, and up to six times as many seeds
at one T as at another, it finds growth where there is none in 3 of 100 draws at most, and a fall in as many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from metalearn_benchmarks.statistics.estimate import Array, Estimate

DEALS = 4999
"""Of the deviations, at random: a p-value near 0.025 strays by 0.002."""
FURTHEST = 12.0
"""|ln growth| up to which an interval is looked for; beyond, it is open."""


@attrs.frozen(eq=False)
class Growth:
    """The growth of the spread over seeds when T doubles, of several rows together.

    The spread at T is the mean over rows of how far two of a row's seeds are apart on average, Gini's mean
    difference, which few seeds do not make smaller. The growth is the slope of its logarithm on log₂ T.
    Deviations never leave their row, as of a depth.

    Args:
        rows: of each row, by T, the score of each seed; two or more T, the same in all, each with three seeds
            or more.
        seeds: of the row and T with the fewest.
        tasks: that scores are means over.
    """

    rows: Sequence[Mapping[int, Mapping[int, float]]]
    seeds: int
    tasks: int
    _found: dict[float, Estimate] = attrs.field(factory=dict, init=False, repr=False)
    error: float = attrs.field(default=math.nan, init=False)

    @property
    def value(self) -> float:
        """The logarithm of the growth; not finite where seeds do not differ at some T."""
        return float(_slopes(self._deviations(), None))

    def interval(self, confidence: float = 0.95) -> Estimate:
        """That logarithm, with those that a permutation test does not refute on either side."""
        if confidence not in self._found:
            deviations = self._deviations()
            deals = self._deals(np.random.default_rng([4, self.seeds, self.tasks]))
            tail = (1 - confidence) / 2
            low, high = (_last_refuted(deviations, deals, tail, side) for side in (-1, 1))
            self._found[confidence] = Estimate(self.value, low, high)
        return self._found[confidence]

    def _deviations(self) -> list[tuple[Array, Array]]:
        """Of each row: log₂ T of every seed, and how far it is above the median of its T."""
        found = []
        for row in self.rows:
            scores = {steps: np.array(list(of_seeds.values())) for steps, of_seeds in sorted(row.items())}
            parts = [(math.log2(steps), x - np.median(x)) for steps, x in scores.items()]
            doublings = np.concatenate([np.full(len(part), t) for t, part in parts])
            found.append((doublings, np.concatenate([part for _, part in parts])))
        return found

    def _deals(self, generator: np.random.Generator) -> list[NDArray[np.int_]]:
        """Of each row `[DEALS, deviations]`: which one comes to stand in each place.

        What is dealt is a seed at a T, with all its rows; only those that have the same rows change places.
        """
        keys = [[(t, seed) for t, of_seeds in sorted(row.items()) for seed in of_seeds] for row in self.rows]
        places = [{key: at for at, key in enumerate(of_row)} for of_row in keys]
        rows_of: dict[tuple[int, int], tuple[int, ...]] = {}
        for row, of_row in enumerate(places):
            for key in of_row:
                rows_of[key] = (*rows_of.get(key, ()), row)
        deals = [np.tile(np.arange(len(of_row)), (DEALS, 1)) for of_row in places]
        for rows in dict.fromkeys(rows_of.values()):
            alike = [key for key, its_rows in rows_of.items() if its_rows == rows]
            dealt = generator.permuted(np.tile(np.arange(len(alike)), (DEALS, 1)), axis=1)
            for row in rows:
                at = np.array([places[row][key] for key in alike])
                deals[row][:, at] = at[dealt]
        return deals


def _mean_difference(scores: Array) -> Array:
    """Gini's: the mean of |x − y| over all pairs of the last axis."""
    count = scores.shape[-1]
    weights = 2 * np.arange(1, count + 1) - count - 1
    return np.asarray((np.sort(scores, -1) * weights).sum(-1) * 2 / (count * (count - 1)))


def _slopes(deviations: Sequence[tuple[Array, Array]], deals: Sequence[NDArray[np.int_]] | None) -> Array:
    """The growth's logarithm, of the deviations as they are or as each deal has them."""
    steps = np.unique(deviations[0][0])
    weights = (steps - steps.mean()) / ((steps - steps.mean()) ** 2).sum()
    total: Array = np.zeros(len(steps))
    for place, (t, away) in enumerate(deviations):
        dealt = away if deals is None else away[deals[place]]
        total = total + np.stack([_mean_difference(dealt[..., t == one]) for one in steps], -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.log(total) * weights).sum(-1))


def _last_refuted(
    deviations: Sequence[tuple[Array, Array]], deals: Sequence[NDArray[np.int_]], tail: float, side: int
) -> float:
    """The logarithm nearest to what was found, on a side, that the test refutes; by bisection."""

    def refuted(growth: float) -> bool:
        at = [(t, away * np.exp(-growth * t)) for t, away in deviations]  # so that spread would not grow
        found, dealt = float(_slopes(at, None)), _slopes(at, deals)
        as_far = (dealt <= found + 1e-12) if side > 0 else (dealt >= found - 1e-12)
        return bool((as_far.sum() + 1) / (len(dealt) + 1) <= tail)

    inside = float(_slopes(deviations, None))
    outside = inside + side * FURTHEST
    if not math.isfinite(inside) or not refuted(outside):
        return side * math.inf
    while abs(outside - inside) > 1e-4:
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return outside
