"""Bootstrap intervals where all seeds are tested on the same tasks.

Seeds are crossed with tasks: `scores[s, i]` is the sum of an effect of seed s, an effect of task i, and a
residual. A draw therefore takes seeds with replacement and, independently, tasks with replacement. It reads
the scores where the two meet (the pigeonhole bootstrap: McCullagh, 2000; Owen, 2007). Two simpler draws are
wrong here. Drawing runs within each task separates the scores of one seed and loses the spread over seeds.
Drawing seeds alone treats the test tasks as all tasks there are. The pigeonhole draw counts the residual up
to three times. With many tasks that is little, and it widens the interval. With few seeds a bootstrap is too
narrow: it has (S − 1)/S of the variance and no Student's t. Below ten seeds, prefer `"t"`.

The intervals are BCa, bias-corrected and accelerated (Efron, 1987), with the acceleration for several
samples that `scipy.stats.bootstrap` also has. scipy's function is not used because it would sort every draw
anew. Mean, median and interquartile mean are all trimmed means. The trimmed mean of a draw follows from how
often each sorted score was drawn, which takes one cumulative sum for all three.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from metalearn_benchmarks.statistics.estimate import TRIMMED_SHARE, Array, Estimate

DRAWS = 999
SEED_DRAWS = 10
"""The draws of seeds for each draw of tasks: they are cheap, and seeds differ more than tasks."""
DRAWS_AT_ONCE = 111
"""The draws handled together: their counts fit a core's cache, which is three times as fast."""
DrawCounts = NDArray[np.signedinteger[Any]]


def _trimmed_counts(count: int) -> tuple[int, int, int]:
    """How many of `count` sorted scores mean, median and interquartile mean leave out at each end."""
    return 0, (count - 1) // 2, int(TRIMMED_SHARE * count)


@functools.lru_cache(maxsize=4)
def _task_draws(count: int) -> list[DrawCounts]:
    """How often each of `count` tasks is drawn, in pieces `[count, PIECE]`: the same numbers every time."""
    generator = np.random.default_rng([0, count])
    counts = generator.multinomial(count, np.full(count, 1 / count), size=DRAWS).T
    small = np.int16 if count < 2**15 else np.int32
    return [counts[:, i : i + DRAWS_AT_ONCE].astype(small, order="C") for i in range(0, DRAWS, DRAWS_AT_ONCE)]


@functools.lru_cache(maxsize=4)
def _seed_draws(count: int) -> Array:
    """The share of each of `count` seeds in a draw, `[count, SEED_DRAWS * DRAWS]`."""
    generator = np.random.default_rng([1, count])
    counts = generator.multinomial(count, np.full(count, 1 / count), size=SEED_DRAWS * DRAWS)
    return np.ascontiguousarray(counts.T) / count


def bootstrap_estimates(scores: Array) -> tuple[Estimate, Estimate, Estimate]:
    """Return the mean, the median and the interquartile mean of a method, with BCa intervals.

    Each is computed over the tasks of each seed and then averaged over seeds.

    Args:
        scores: the scores `[seeds, tasks]`. Infinities must all have one sign; they are the worst scores.

    Returns:
        The three estimates. With one seed only the tasks are resampled. There is no interval where there is
        one task and one seed, or where the number is not finite.
    """
    seeds, tasks = scores.shape
    values = np.empty((3, seeds))  # of each statistic and seed
    replicates = np.empty((3, seeds, DRAWS))
    without_task = np.zeros((3, tasks))  # the mean over seeds, a task left out
    for seed, row in enumerate(scores):
        order = np.argsort(row, kind="stable")
        values[:, seed] = [_trimmed_mean(row[order], cut) for cut in _trimmed_counts(tasks)]
        pieces = [_replicates(row[order], counts[order]) for counts in _task_draws(tasks)]
        replicates[:, seed] = np.concatenate(pieces, axis=1)
        if tasks > 1:
            for which, cut in enumerate(_trimmed_counts(tasks - 1)):
                without_task[which, order] += _leave_one_out(row[order], cut) / seeds
    # of one seed there is but one draw
    weights = _seed_draws(seeds) if seeds > 1 else np.ones((1, DRAWS))
    estimates = []
    for which in range(3):
        value = float(values[which].mean())
        if not math.isfinite(value) or (tasks == 1 and seeds == 1):
            estimates.append(Estimate(value if math.isfinite(value) else math.nan, math.nan, math.nan))
            continue
        with np.errstate(invalid="ignore"):  # 0 times an infinity: a seed that was not drawn
            of_tasks = np.tile(replicates[which], weights.shape[1] // DRAWS)
            products = np.where(weights > 0, weights * of_tasks, 0.0)
        jackknives = [without_task[which]] if tasks > 1 else []
        if seeds > 1:
            jackknives.append((values[which].sum() - values[which]) / (seeds - 1))
        estimates.append(_bca(value, products.sum(0), jackknives))
    return estimates[0], estimates[1], estimates[2]


def _trimmed_mean(ranked: Array, cut: int) -> float:
    return float(ranked[cut : len(ranked) - cut].mean())


def _replicates(ranked: Array, counts: DrawCounts) -> Array:
    """The three trimmed means of each draw, `[3, PIECE]`, of sorted scores and how often each was drawn."""
    finite = np.isfinite(ranked)
    numbers = np.where(finite, ranked, 0.0)
    reached = np.cumsum(counts, axis=0, dtype=counts.dtype)
    found = np.empty((3, counts.shape[1]))
    for which, cut in enumerate(_trimmed_counts(len(ranked))):
        kept = counts
        if cut:
            inside = np.clip(reached, cut, len(ranked) - cut)
            kept = np.diff(inside, axis=0, prepend=counts.dtype.type(cut))
        found[which] = numbers @ kept / (len(ranked) - 2 * cut)
        if not finite.all():
            found[which, kept[~finite].any(0)] = ranked[~finite][0]
    return found


def _leave_one_out(ranked: Array, cut: int) -> Array:
    """The trimmed mean of all but one, for each that is left out, in their order."""
    place, high = np.arange(len(ranked)), len(ranked) - 1 - cut
    # of those that stay, the places cut ... high - 1: all of one more, without the one that is left out
    more = ranked[cut : high + 1].sum()
    left_out = np.where(place < cut, ranked[cut], np.where(place >= high, ranked[high], ranked))
    with np.errstate(invalid="ignore"):  # an infinity less an infinity: no acceleration follows from it
        return np.asarray((more - left_out) / (high - cut))


def _bca(value: float, replicates: Array, jackknives: list[Array]) -> Estimate:
    """The BCa interval at 95 % (Efron and Tibshirani, 1993, section 14.3); a jackknife for each sample."""
    below = np.count_nonzero(replicates < value) + np.count_nonzero(replicates <= value)
    share = np.clip(below / 2, 0.5, len(replicates) - 0.5) / len(replicates)
    bias = special.ndtri(share)
    with np.errstate(invalid="ignore"):  # infinities have no influence that is a number
        shrunk = [(len(j) - 1) / len(j) * (j.mean() - j) for j in jackknives]
    squares = sum(float((u**2).sum()) for u in shrunk)
    cubes = sum(float((u**3).sum()) for u in shrunk)
    acceleration = cubes / (6 * squares**1.5) if math.isfinite(squares) and squares > 0 else 0.0
    z = bias + special.ndtri([0.025, 0.975])
    places = special.ndtr(bias + z / (1 - acceleration * z))
    if np.isfinite(replicates).all():
        low, high = np.quantile(replicates, places)
    else:  # between a number and an infinity there is nothing to interpolate
        low, high = np.quantile(replicates, places, method="closest_observation")
    return Estimate(value, float(low), float(high))
