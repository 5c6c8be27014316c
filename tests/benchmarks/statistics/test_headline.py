"""The number by which tables order methods, and the count of runs that never learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.headline import (
    count_never_learned,
    headline_difference,
    never_learned,
    typical_error,
)
from metalearn_benchmarks.statistics.paired_scores import MethodScores
from metalearn_benchmarks.statistics.summaries import summarise_method


def record(finals, *, family="sine", score="mean squared error", up=False, **options):
    cell = {"name": "m", "seed": 0, "family": {"name": family, "options": options}}
    scores = np.stack([np.zeros(len(finals)), np.asarray(finals, dtype=float)], axis=1)
    return Record(Path("m/0"), cell, {"score": score, "higher_is_better": up, "scores": {family: scores}})


def scores_of(seeds, tasks, start=0):
    generator = np.random.default_rng([seeds, tasks, start])
    return generator.exponential(size=(1, tasks)) * generator.uniform(0.8, 1.2, size=(seeds, tasks))


def drawn_anew(number, tasks):
    """A trimmed mean over seeds, Yuen's error of it, and its spread over draws of the tasks, step by step."""
    own, cut = np.sort(number(np.arange(tasks))), 2  # of nine
    clipped = np.clip(own, own[cut], own[-cut - 1])
    of_seeds = clipped.std(ddof=1) / ((1 - 2 * cut / 9) * 3)
    generator = np.random.default_rng([2, tasks])
    draws = [stats.trim_mean(number(generator.integers(tasks, size=tasks)), 0.25) for _ in range(200)]
    return stats.trim_mean(own, 0.25), np.hypot(of_seeds, np.std(draws, ddof=1)), np.std(draws, ddof=1)


@pytest.mark.parametrize("tasks", [40, 41])
def test_it_is_a_trimmed_mean_of_medians_with_yuens_error_and_that_of_the_tasks(tasks):
    one, other = scores_of(9, tasks), scores_of(9, tasks, 1)
    ours = typical_error(one)
    expected = drawn_anew(lambda chosen: np.median(one[:, chosen], axis=1), tasks)
    assert (ours.value, ours.standard_error, ours.task_error) == pytest.approx(expected)
    sides = [MethodScores(name, tuple(range(9)), x, {}) for name, x in (("a", one), ("b", other))]
    paired = headline_difference(*sides, higher_is_better=False)
    expected = drawn_anew(
        lambda chosen: np.median(one[:, chosen], axis=1) - np.median(other[:, chosen], axis=1), tasks
    )
    assert (paired.value, paired.standard_error, paired.task_error) == pytest.approx(expected)
    assert paired.degrees_of_freedom == 4


def test_of_few_runs_it_is_the_mean_of_their_medians():
    values = scores_of(3, 60)
    assert summarise_method(values).headline.value == pytest.approx(np.median(values, axis=1).mean())


def test_one_run_that_never_learned_does_not_decide_it():
    values = scores_of(10, 60)
    lost = np.vstack([values[:9], np.full((1, 60), 100.0)])
    assert summarise_method(lost).headline.value < 1.2 * summarise_method(values).headline.value
    assert summarise_method(lost).mean.value > 5 * summarise_method(values).mean.value


def test_of_accuracies_it_is_the_mean():
    values = np.clip(scores_of(5, 30) / 4, 0, 1)
    found = summarise_method(values, score="accuracy", higher_is_better=True)
    assert found.headline == found.mean


@pytest.mark.parametrize("way", ["t", "bootstrap"])
def test_its_interval_has_a_length_and_holds_it(way):
    for seeds in (1, 2, 8):
        found = summarise_method(scores_of(seeds, 50), way).headline
        assert found.low < found.value < found.high


def test_a_run_that_answers_a_constant_never_learned():
    """A wave of amplitude A answered by 0 has the error A² / 2."""
    amplitudes = np.random.default_rng(0).uniform(0.1, 5, size=2000)
    assert never_learned(record(amplitudes**2 / 2))
    assert not never_learned(record(0.8 * amplitudes**2 / 2))
    blown_up = np.where(np.arange(2000) % 10 == 0, np.inf, 0.1)
    assert not never_learned(record(blown_up)), "most of its tasks are solved"
    assert never_learned(record([0.2, 0.22], family="images", score="accuracy", up=True, ways=5))
    assert not never_learned(record([0.3, 0.31], family="images", score="accuracy", up=True, ways=5))
    assert never_learned(record([0.2], family="other")) is None
    assert count_never_learned([record([4.25]), record([0.1])]) == 1
    assert count_never_learned([record([4.25]), record([0.1], family="other")]) is None
