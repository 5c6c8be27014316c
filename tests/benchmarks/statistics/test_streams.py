"""Rows over several streams, against a bootstrap written as plain loops, and its errors counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metalearn_benchmarks.statistics.streams import typical_log_ratio_over_streams
from metalearn_core.errors import UsageError


def rows(seed, *, shift=0.0, runs=10, tasks=101, streams=(0, 1, 2), spread=0.2):
    """Two rows of errors by stream: tasks differ much and are shared, runs differ and are not."""
    generator = np.random.default_rng(seed)
    one, other = {}, {}
    for stream in streams:
        hard = generator.normal(size=tasks)
        base = 0.3 * generator.normal()
        for row, by in ((one, shift), (other, 0.0)):
            own = spread * generator.normal(size=(runs, 1))
            row[stream] = np.exp(base + by + own + hard + 0.1 * generator.normal(size=(runs, tasks)))
    return one, other


def middle(numbers):
    ranked = sorted(numbers)
    cut = len(ranked) // 4
    kept = ranked[cut : len(ranked) - cut]
    return sum(kept) / len(kept)


def plain_draws(one, other, draws=1500):
    """The bootstrap in the plan's words, one number at a time."""
    generator = np.random.default_rng(99)
    found = []
    for _ in range(draws):
        sides = ([], [])
        for stream in one:
            tasks = generator.integers(one[stream].shape[1], size=one[stream].shape[1])
            for numbers, row in zip(sides, (one[stream], other[stream]), strict=True):
                for run in generator.integers(len(row), size=len(row)):
                    numbers.append(float(np.median(row[run][tasks])))
        found.append(math.log(middle(sides[0]) / middle(sides[1])))
    return np.array(found)


def test_the_ratio_and_its_interval_are_those_of_plain_loops():
    one, other = rows(0, shift=-0.1)
    found = typical_log_ratio_over_streams(one, other)
    medians = [[float(np.median(run)) for stream in row.values() for run in stream] for row in (one, other)]
    assert found.value == pytest.approx(math.log(middle(medians[0]) / middle(medians[1])), abs=1e-12)
    draws = plain_draws(one, other)
    width = np.std(draws)
    assert found.low == pytest.approx(np.quantile(draws, 0.025), abs=0.2 * width)
    assert found.high == pytest.approx(np.quantile(draws, 0.975), abs=0.2 * width)
    assert found.runs == (30, 30)
    assert found.ratio().value == pytest.approx(math.exp(found.value))


def test_each_stream_has_its_own_ratio():
    one, other = rows(1)
    found = typical_log_ratio_over_streams(one, other)
    for stream in one:
        alone = typical_log_ratio_over_streams({stream: one[stream]}, {stream: other[stream]})
        assert found.by_stream[stream] == pytest.approx(alone.value, abs=1e-12)


def test_equal_rows_are_seldom_told_apart_and_different_ones_often():
    def told(shift):
        pairs = (rows(100 + seed, shift=shift) for seed in range(80))
        return sum(typical_log_ratio_over_streams(*pair).p_value < 0.05 for pair in pairs)

    assert told(0.0) <= 10  # 4 expected, 10 is beyond three standard deviations
    assert told(-0.25) >= 64


def test_one_stream_that_points_the_other_way_is_not_ahead():
    one, other = rows(2, shift=-1.0)
    assert typical_log_ratio_over_streams(one, other).which_is_ahead() == "one"
    assert typical_log_ratio_over_streams(other, one).which_is_ahead() == "other"
    one[2] = other[2] * 1.05
    against = typical_log_ratio_over_streams(one, other)
    assert against.high < 0
    assert against.which_is_ahead() is None


def test_a_p_value_that_holm_raised_decides():
    found = typical_log_ratio_over_streams(*rows(3, shift=-1.0))
    assert found.which_is_ahead(0.04) == "one"
    assert found.which_is_ahead(0.06) is None


def test_a_stuck_quarter_is_left_out_and_half_is_not_told():
    one, other = rows(4)
    one[0][:5] = np.inf
    assert math.isfinite(typical_log_ratio_over_streams(one, other).value)
    for stream in one.values():
        stream[:5] = np.nan
    assert math.isnan(typical_log_ratio_over_streams(one, other).p_value)


def test_other_streams_or_tasks_are_refused():
    one, other = rows(5)
    with pytest.raises(UsageError, match=r"streams \[0, 1\] and \[0, 1, 2\]"):
        typical_log_ratio_over_streams({0: one[0], 1: one[1]}, other)
    with pytest.raises(UsageError, match="on stream 0 the rows have 50 and 101 test tasks"):
        typical_log_ratio_over_streams({**one, 0: one[0][:, :50]}, other)
