"""Medians of runs over test tasks, and over bootstrap draws of them, each computed once."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from metalearn_benchmarks.statistics.estimate import Array

TASK_DRAWS = 200
"""The bootstrap draws of test tasks. The standard error they give is itself known to 5 %."""


def medians_over_tasks(scores: Array) -> tuple[Array, Array]:
    """Return the medians of errors over all tasks, `[seeds]`, and over each draw of them, `[draws, seeds]`.

    An error that is not finite counts as the worst.
    """
    scores = np.where(np.isfinite(scores), scores, np.inf)
    found = [_medians_of_run(np.ascontiguousarray(row).tobytes()) for row in scores]
    return np.array([own for own, _ in found]), np.stack([drawn for _, drawn in found], axis=1)


@functools.lru_cache(maxsize=4096)
def _medians_of_run(scores: bytes) -> tuple[float, Array]:
    """The median of a run's scores, and that of each draw of the test tasks.

    A run meets several others, so both are kept. The draws are the same for every comparison.
    """
    values = np.frombuffer(scores)
    order = np.argsort(values, kind="stable")
    ranked, count = values[order], len(values)
    reached = np.cumsum(_task_draws(count)[:, order], axis=1, dtype=np.int32)
    low, high = ((reached <= place).sum(1) for place in ((count - 1) // 2, count // 2))
    with np.errstate(invalid="ignore"):
        return float(np.median(values)), (ranked[low] + ranked[high]) / 2


@functools.lru_cache(maxsize=4)
def _task_draws(count: int) -> NDArray[np.int16]:
    """How often each of `count` tasks is drawn, `[draws, count]`."""
    generator = np.random.default_rng([2, count])
    draws = [np.bincount(generator.integers(count, size=count), minlength=count) for _ in range(TASK_DRAWS)]
    return np.array(draws, dtype=np.int16)
