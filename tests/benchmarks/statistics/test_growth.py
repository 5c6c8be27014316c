"""How spread grows with T: the number by hand, the test against all permutations, and how often it errs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from metalearn_benchmarks.statistics import growth
from metalearn_benchmarks.statistics.growth import SpreadGrowth


def by_seed(row):
    """Scores by T, `[seeds]`, as a row has them."""
    return {steps: dict(enumerate(np.asarray(scores).tolist())) for steps, scores in row.items()}


def drawn(generator, counts, stuck=0.0):
    """Scores of a row by T; some seeds never learn."""
    learned = {steps: 0.2 + 0.02 * generator.normal(size=count) for steps, count in counts.items()}
    return {steps: np.where(generator.random(len(x)) < stuck, 4.2, x) for steps, x in learned.items()}


def stuck_alike(generator, rows, counts, stuck):
    """Rows in which a seed that never learns in one never does in three quarters of the others, either."""
    hard = {steps: generator.random(count) < stuck for steps, count in counts.items()}
    found = []
    for _ in range(rows):
        row = drawn(generator, counts)
        found.append(
            {t: np.where(hard[t] & (generator.random(len(x)) < 0.75), 4.2, x) for t, x in row.items()}
        )
    return found


def test_the_growth_by_hand():
    """Pairs are 4/3 apart, then 20/3; those of a second row 4, then not at all."""
    rows = [
        {1: np.array([1.0, 2, 3]), 4: np.array([12.0, 4, 0, 8])},
        {1: np.array([0.0, 2, 6]), 4: np.ones(3)},
    ]
    rows = list(map(by_seed, rows))
    assert SpreadGrowth(rows[:1], 3, 1).value == pytest.approx(math.log(5) / 2)
    assert SpreadGrowth(rows, 3, 1).value == pytest.approx(math.log((20 / 3) / (4 + 4 / 3)) / 2)


def test_seeds_that_do_not_differ_have_no_growth():
    assert not math.isfinite(SpreadGrowth([by_seed({1: np.ones(4), 2: np.arange(4.0)})], 4, 1).value)


def test_the_interval_ends_where_all_permutations_say():
    """Of few seeds every way to deal them can be counted."""
    one, two = np.array([1.0, 1.4, 2.0, 2.9]), np.array([1.0, 3.0, 8.0, 9.5])
    interval = SpreadGrowth([by_seed({1: one, 2: two})], 4, 1).interval(0.6)
    away = [x - np.median(x) for x in (one, two)]

    def apart(x):
        return np.mean([abs(a - b) for a, b in itertools.combinations(x, 2)])

    def p_value(growth, side):
        pooled = np.concatenate([away[0], away[1] / math.exp(growth)])
        slopes = []
        for chosen in itertools.combinations(range(8), 4):
            others = [place for place in range(8) if place not in chosen]
            slopes.append(math.log(apart(pooled[others]) / apart(pooled[list(chosen)])))
        return np.mean(side * np.array(slopes) <= side * slopes[0] + 1e-12)

    for end, side in ((interval.low, -1), (interval.high, 1)):
        assert p_value(end - side * 0.05, side) > 0.19
        assert p_value(end + side * 0.05, side) < 0.21


def test_a_growth_that_is_put_in_comes_out():
    """Scores whose spread doubles with T shift value and interval by ln 2."""
    rows = [drawn(np.random.default_rng(seed), {1: 9, 2: 9, 8: 9}, stuck=0.1) for seed in range(3)]
    grown = [
        {steps: np.median(x) + (x - np.median(x)) * 2 ** np.log2(steps) for steps, x in row.items()}
        for row in rows
    ]
    plain, doubled = (SpreadGrowth(list(map(by_seed, x)), 9, 1).interval() for x in (rows, grown))
    for name in ("value", "low", "high"):
        assert getattr(doubled, name) == pytest.approx(getattr(plain, name) + math.log(2), abs=2e-3)


def test_rows_keep_their_seeds():
    """A row of wide spread at every T says nothing; dealt among all rows it would."""
    generator = np.random.default_rng(3)
    wide = {steps: 100 * generator.normal(size=12) for steps in (1, 4)}
    narrow = {1: 1e-3 * generator.normal(size=12), 4: 1e-3 * generator.normal(size=12)}
    wide, narrow = by_seed(wide), by_seed(narrow)
    alone, both = SpreadGrowth([wide], 12, 1).interval(), SpreadGrowth([wide, narrow], 12, 1).interval()
    assert both.low == pytest.approx(alone.low, abs=0.03)
    assert both.high == pytest.approx(alone.high, abs=0.03)


def test_seeds_are_dealt_with_all_their_rows():
    """The same scores in four rows say what they say in one; dealt row by row they would seem to say more."""
    row = by_seed(drawn(np.random.default_rng(4), {1: 12, 4: 12}, stuck=0.2))
    one, four = SpreadGrowth([row], 12, 1).interval(), SpreadGrowth([row] * 4, 12, 1).interval()
    assert (four.value, four.low, four.high) == pytest.approx((one.value, one.low, one.high), abs=1e-9)


def test_a_seed_that_some_rows_lack_changes_places_with_its_like_alone():
    """Seeds 0 to 7 have both rows, 8 and 9 have one: they are dealt among themselves."""
    full = {1: range(8), 4: range(8)}
    more = {1: range(10), 4: range(10)}
    rows = [{t: {s: float(10 * t + s) for s in seeds} for t, seeds in of.items()} for of in (full, more)]
    of_full, of_more = SpreadGrowth(rows, 8, 1)._permutations(np.random.default_rng(0))
    places = [8, 9, 18, 19]
    assert (np.sort(of_more[:, places], axis=1) == places).all()
    others = np.delete(np.arange(20), places)
    assert (others[of_full] == of_more[:, others]).all()
    assert (of_full != np.arange(16)).any()


def test_where_nothing_is_refuted_the_interval_is_open():
    found = SpreadGrowth([by_seed({1: [0.0, 1, 3], 2: [0.0, 5, 7]})], 3, 1).interval()
    assert (found.low, found.high) == (-math.inf, math.inf)


@pytest.mark.nightly
@pytest.mark.parametrize("stuck", [0.0, 0.03, 0.05, 0.1])
@pytest.mark.parametrize(
    ("rows", "counts", "alike"),
    [
        (1, {1: 20, 5: 20, 10: 10}, False),
        (8, {1: 5, 5: 5, 10: 5}, False),
        (8, {1: 5, 5: 5, 10: 5}, True),
        (8, {1: 30, 5: 5, 10: 5}, False),
        (8, {1: 30, 5: 5, 10: 5}, True),
    ],
)
def test_it_seldom_errs_where_spread_does_not_grow(rows, counts, stuck, alike, monkeypatch):
    """Whether some seeds never learn, as one of TURTLE's in twenty does, or none: 2.5 % on each side.

    `alike`: they are the same ones in most rows.
    """
    monkeypatch.setattr(growth, "PERMUTATIONS", 999)
    generator, wrong = np.random.default_rng(5), np.zeros(2)
    for _ in range(400):
        if alike:
            scores = stuck_alike(generator, rows, counts, stuck)
        else:
            scores = [drawn(generator, counts, stuck) for _ in range(rows)]
        found = SpreadGrowth(list(map(by_seed, scores)), 5, 1)
        if math.isfinite(found.value):
            interval = found.interval()
            wrong += (interval.low > 0, interval.high < 0)
    assert (wrong / 400).max() <= 0.045
