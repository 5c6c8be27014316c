"""Methods compared on the same tasks: paired differences and ratios, and what many comparisons ask for.

Seeds and test tasks are both drawn from more of their kind, and crossed: every seed meets every task. So the
mean of x[s, i] strays by what seeds add, by what tasks add, and by what is left, and its variance is
(MS_seeds + MS_tasks − MS_left) / (S N), with the mean squares of a two-way table without replication. Its
degrees of freedom are those of the fewer, most often S − 1: on the safe side, as Satterthwaite's are not
(two seeds that are close by chance pass for many; simulated, 89 % of their intervals hold the truth). With
one seed it is Student's t over tasks, and says nothing of other seeds; of one number a seed (wall time) it
is Student's t over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from metalearn_benchmarks.statistics.estimate import MIDDLE, Array, Estimate
from metalearn_benchmarks.statistics.paired_scores import Scores, paired
from metalearn_core.errors import UsageError

DRAWS = 200
"""Of test tasks, for the error that they add to what is typical: an error of 5 % of that error."""


@attrs.frozen
class Contrast:
    """An effect, how far it strays, and from how much it is known.

    Args:
        error: its standard error, NaN where it is not known.
        freedom: the degrees of freedom of `error`; infinite where nothing strays.
        seeds, tasks: how many seeds both sides have, and how many test tasks.
        error_of_tasks: the part of `error` that more seeds would not take away.
    """

    value: float
    error: float
    freedom: float
    seeds: int
    tasks: int
    error_of_tasks: float = 0.0

    def interval(self, confidence: float = 0.95) -> Estimate:
        """The effect with Student's t interval."""
        half = float(stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return Estimate(self.value, self.value - half, self.value + half)

    def p_value(self, null: float = 0.0) -> float:
        """Of the two-sided test that the effect is `null`; NaN where its error is not known."""
        away = abs(self.value - null)
        if self.error == 0:
            return float(away == 0)
        return float(2 * stats.t.sf(away / self.error, self.freedom))


def difference(one: Scores, other: Scores) -> Contrast:
    """The mean of `one` less the mean of `other`, paired by seed and task."""
    a, b = paired(one, other)
    return two_way(a - b)


def log_ratio(one: Scores, other: Scores) -> Contrast:
    """ln(mean of `one` / mean of `other`), paired by seed and task; its error by the delta method.

    Raises UsageError where a mean is not above 0.
    """
    a, b = paired(one, other)
    if a.mean() <= 0 or b.mean() <= 0:
        raise UsageError(
            f"{one.method} and {other.method}: a ratio needs means above 0,"
            f" got {a.mean():.4g} and {b.mean():.4g}"
        )
    strays = two_way(a / a.mean() - b / b.mean())
    return attrs.evolve(strays, value=float(np.log(a.mean() / b.mean())))


def unpaired_difference(one: Array, other: Array) -> Contrast:
    """The mean of `one` less that of `other`, `[seeds, tasks]` each, with tasks of their own."""
    sides = [two_way(one), two_way(other)]
    squares = [side.error**2 for side in sides]
    error = math.sqrt(sum(squares))
    return Contrast(
        value=sides[0].value - sides[1].value,
        error=error,
        freedom=_satterthwaite(squares, [side.freedom for side in sides]),
        seeds=min(side.seeds for side in sides),
        tasks=min(side.tasks for side in sides),
        error_of_tasks=math.hypot(*(side.error_of_tasks for side in sides)),
    )


Places = NDArray[np.signedinteger[Any]] | slice


def typical_difference(one: Scores, other: Scores) -> Contrast:
    """What is typical of `one` less what is typical of `other`: see `typical`; paired by seed and task."""
    a, b = paired(one, other)
    return typical(lambda tasks: _medians(a, tasks) - _medians(b, tasks), *a.shape)


def typical_log_ratio(one: Scores, other: Scores) -> Contrast:
    """The logarithm of one's typical score over the other's, seed by seed; UsageError for scores of 0."""
    a, b = paired(one, other)
    if min(a.min(), b.min()) <= 0:
        raise UsageError(f"{one.method} and {other.method}: a ratio needs scores above 0")
    return typical(lambda tasks: np.log(_medians(a, tasks) / _medians(b, tasks)), *a.shape)


def _medians(scores: Array, tasks: Places) -> Array:
    return np.asarray(np.median(scores[:, tasks], axis=1))


def typical(of_seeds: Callable[[Places], Array], seeds: int, tasks: int) -> Contrast:
    """What is typical of seeds: the mean of their middle half, so that no run that broke decides alone.

    Its error has a part of the seeds, by Yuen's (1974) winsorised variance with Student's t over the seeds of
    the middle half, and a part of the test tasks, which all seeds share: how far it strays where tasks are
    drawn again with replacement.

    Args:
        of_seeds: a number for each seed `[seeds]`, from the test tasks of the given places.
    """
    everything = of_seeds(slice(None))
    value, cut = _middle(everything), int(MIDDLE * seeds)
    if seeds < 2 or not np.isfinite(everything).all():
        return Contrast(value if math.isfinite(value) else math.nan, math.nan, math.nan, seeds, tasks)
    ranked = np.sort(everything)
    winsorised = np.clip(everything, ranked[cut], ranked[seeds - cut - 1])
    of_the_seeds = float(winsorised.std(ddof=1)) / ((1 - 2 * cut / seeds) * math.sqrt(seeds))
    generator = np.random.default_rng([2, tasks])  # the same draws for every comparison
    drawn = [_middle(of_seeds(generator.integers(tasks, size=tasks))) for _ in range(DRAWS)]
    of_the_tasks = float(np.std(drawn, ddof=1))
    error, freedom = math.hypot(of_the_seeds, of_the_tasks), float(seeds - 2 * cut - 1)
    return Contrast(value, error, freedom if error else math.inf, seeds, tasks, of_the_tasks)


def _middle(of_seeds: Array) -> float:
    return float(stats.trim_mean(of_seeds, MIDDLE))


def two_way(x: Array) -> Contrast:
    """The mean of x `[seeds, tasks]` as an estimate over both: see this module's text.

    Where rounding or chance makes the sum of mean squares less than one of its parts, that part stands
    for it. A value that is not finite leaves nothing known.
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
    """p-values adjusted for being many (Holm, 1979); NaN stays NaN and counts for none.

    `among`: how many comparisons these were chosen from, where those are more.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    many = max(among, len(order))
    adjusted, least = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        least = max(least, min(1.0, (many - rank) * p))
        adjusted[place] = least
    return adjusted
