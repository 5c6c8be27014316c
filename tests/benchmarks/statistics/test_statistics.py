"""Estimates against closed forms, scipy, plain loops, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from metalearn_benchmarks.learners.images.classifier import accuracy, cross_entropy
from metalearn_benchmarks.learners.perceptron import mean_squared_error
from metalearn_benchmarks.statistics import bootstrap as crossed
from metalearn_benchmarks.statistics import comparisons
from metalearn_benchmarks.statistics.comparisons import (
    difference,
    holm,
    log_ratio,
    two_way_mean,
    unpaired_difference,
)
from metalearn_benchmarks.statistics.estimate import SCORE_RANGES
from metalearn_benchmarks.statistics.paired_scores import MethodScores
from metalearn_benchmarks.statistics.summaries import summarise_method, summarise_run
from metalearn_core import BaseLearner, UsageError


def drawn(seeds: int, tasks: int, number: int = 0, spread: tuple[float, float, float] = (1, 1, 1)):
    """Scores with a part of each seed, a part of each task and a rest, of these standard deviations."""
    generator = np.random.default_rng(number)
    of_seeds = spread[0] * generator.normal(size=(seeds, 1))
    of_tasks = spread[1] * (generator.exponential(size=tasks) - 1)
    return 5 + of_seeds + of_tasks + spread[2] * generator.normal(size=(seeds, tasks))


def given_scores(values, seeds=None, method="m", **tasks):
    values = np.asarray(values, dtype=float)
    return MethodScores(method, tuple(seeds or range(len(values))), values, {"family.name": "sine", **tasks})


def test_the_mean_of_several_runs_has_students_interval_over_runs():
    scores = drawn(5, 40)
    found = summarise_method(scores)
    for estimate, runs in (
        (found.mean, scores.mean(1)),
        (found.median, np.median(scores, axis=1)),
        (found.interquartile_mean, [stats.trim_mean(row, 0.25) for row in scores]),
    ):
        expected = stats.ttest_1samp(runs, 0).confidence_interval(0.95)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (np.mean(runs), expected.low, expected.high)
        )
    assert found.intervals_over == "seeds"


@pytest.mark.parametrize(("score", "low", "high"), [("mean squared error", 0, math.inf), ("accuracy", 0, 1)])
def test_an_interval_has_nothing_that_the_score_cannot_be(score, low, high):
    scores = np.full((5, 40), 0.1) + np.array([0, 0, 0, 0, 0.8])[:, None] + drawn(5, 40) / 1000
    raw = summarise_method(scores, score="a stranger's score")
    found = summarise_method(scores, score=score)
    assert raw.mean.low < 0 < raw.mean.high < 1
    assert raw.median.low < 0
    assert (found.mean.low, found.mean.high) == (low, raw.mean.high)
    assert (found.median.low, found.median.value) == (low, raw.median.value)
    turned = summarise_method(1 - scores, score=score)
    assert turned.mean.high == pytest.approx(min(high, 1 - raw.mean.low))
    assert summarise_run(scores[:, 0], score)["ci95"][0] == low
    # the authors' program cuts nothing
    assert summarise_method(scores, "paper", score=score) == summarise_method(scores, "paper")


def test_bounds_are_of_the_names_that_records_have():
    scores = accuracy, cross_entropy, mean_squared_error, nn.functional.mse_loss
    learners = [BaseLearner(nn.Linear(1, 1), mean_squared_error, score) for score in scores]
    assert [learner.score_name.replace("_", " ") for learner in learners] == list(SCORE_RANGES)


def test_the_interquartile_mean_of_one_run_is_the_mean_of_its_middle_half():
    # 12 values: 3 left out at each end; the Winsorized variance of 4 4 4 4 5 6 7 8 9 9 9 9, and t at 5
    values = [9.0, 1, 8, 2, 3, 4, 5, 6, 7, 100, 200, 300]
    ranked = [4.0] * 4 + [5, 6, 7, 8] + [9.0] * 4
    found = summarise_method(np.array([values])).interquartile_mean
    half = stats.t.ppf(0.975, 5) * np.std(ranked, ddof=1) / (0.5 * math.sqrt(12))
    assert found.value == (4 + 5 + 6 + 7 + 8 + 9) / 6
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))


def test_the_papers_way_is_that_of_the_authors_program():
    # medians of runs 1 ... 9 and 60: the fences are 3.25 - 6.75 and 7.75 + 6.75, so 60 is left out
    medians = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 60])
    scores = medians[:, None] + np.array([-1.0, 0, 3])
    found = summarise_method(scores, "paper")
    half = 1.96 * np.std(np.arange(1, 10), ddof=1) / 3
    assert (found.median.value, found.median.low, found.median.high) == pytest.approx((5, 5 - half, 5 + half))
    assert found.outliers == (1, 1, 1)
    one = summarise_method(scores[:1], "paper")
    assert one.median.value == 1
    assert math.isnan(one.median.low)


STATISTICS = {"mean": np.mean, "median": np.median, "interquartile_mean": lambda x: stats.trim_mean(x, 0.25)}


@pytest.mark.parametrize("shape", [(6, 21), (3, 22), (4, 40), (1, 9)])
def test_draws_are_those_of_a_plain_loop_over_seeds_and_tasks(shape, monkeypatch):
    scores, seen = drawn(*shape, spread=(1, 2, 0.5)), []
    bca = crossed._bca
    monkeypatch.setattr(crossed, "_bca", lambda *of: seen.append(of[:2]) or bca(*of))
    crossed.bootstrap_estimates(scores)
    tasks = np.concatenate(crossed._task_draws(shape[1]), axis=1).T
    seeds = np.rint(crossed._seed_draws(shape[0]).T * shape[0]).astype(int)
    assert len(np.unique(tasks, axis=0)) > 0.9 * crossed.DRAWS
    for (value, replicates), statistic in zip(seen, STATISTICS.values(), strict=True):
        assert value == pytest.approx(np.mean([statistic(row) for row in scores]))
        assert len(replicates) == crossed.DRAWS * (1 if shape[0] == 1 else crossed.SEED_DRAWS)
        for draw in range(0, len(replicates), 131):
            rows = np.repeat(np.arange(shape[0]), seeds[draw])
            columns = np.repeat(np.arange(shape[1]), tasks[draw % crossed.DRAWS])
            plain = np.mean([statistic(scores[row, columns]) for row in rows])
            assert replicates[draw] == pytest.approx(plain)


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("shape", [(8, 30), (12, 9), (1, 401)])
def test_bca_is_scipys_where_seeds_and_tasks_are_two_samples_of_places(name, shape):
    scores, statistic = drawn(*shape, number=1), STATISTICS[name]

    def of_places(rows, columns=None, axis=-1):
        if columns is None:
            rows, columns = np.zeros((*rows.shape[:-1], 1), dtype=int), rows
        taken = scores[
            np.asarray(rows, dtype=int)[..., :, None], np.asarray(columns, dtype=int)[..., None, :]
        ]
        kind = stats.trim_mean if name == "interquartile_mean" else statistic
        return np.mean(kind(taken, *([0.25] if kind is stats.trim_mean else []), axis=-1), axis=-1)

    places = [np.arange(n) for n in shape if n > 1]
    expected = stats.bootstrap(
        places, of_places, n_resamples=9999, vectorized=True, batch=500, random_state=np.random.default_rng(3)
    )
    found = getattr(summarise_method(scores, "bootstrap"), name)
    low, high = expected.confidence_interval
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.data())
def test_leave_one_out_in_closed_form(values, data):
    ranked = np.sort(np.array(values))
    cut = data.draw(st.integers(0, (len(values) - 2) // 2))
    plain = [np.delete(ranked, i)[cut : len(ranked) - 1 - cut].mean() for i in range(len(ranked))]
    assert crossed._leave_one_out(ranked, cut) == pytest.approx(plain, abs=1e-9)


def test_the_same_scores_give_the_same_interval_to_the_bit():
    scores = drawn(4, 50)
    found = summarise_method(scores, "bootstrap")
    crossed._task_draws.cache_clear()
    crossed._seed_draws.cache_clear()
    assert summarise_method(scores.copy(), "bootstrap") == found
    assert found.intervals_over == "seeds and test tasks"


@pytest.mark.parametrize("way", ["t", "bootstrap", "paper"])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("seeds", [1, 4])
def test_a_score_that_is_not_finite_is_the_worst_one_and_told(way, up, seeds):
    scores = drawn(seeds, 40)
    scores[0, 3] = np.nan
    worst = scores.copy()
    worst[0, 3] = -1e9 if up else 1e9
    found = summarise_method(scores, way, higher_is_better=up)
    expected = summarise_method(worst, way, higher_is_better=up)
    assert found.not_finite == 1
    assert math.isnan(found.mean.value)
    assert math.isnan(found.mean.low)
    assert found.median.value == expected.median.value
    assert found.interquartile_mean.value == pytest.approx(expected.interquartile_mean.value)
    if (way, seeds) != ("paper", 1):
        for name in ("median", "interquartile_mean"):
            ours, theirs = getattr(found, name), getattr(expected, name)
            assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-2)
    if way != "paper":
        lost = summarise_method(np.full((seeds, 8), np.nan), way)
        assert not math.isfinite(lost.median.value)
        assert math.isnan(lost.median.low) or math.isinf(lost.median.low)


def test_an_unknown_way_is_refused():
    with pytest.raises(UsageError, match="unknown way of statistics 'bca'"):
        summarise_method(drawn(2, 3), "bca")


def test_one_seed_is_students_t_over_paired_tasks():
    a, b = drawn(1, 30), drawn(1, 30, number=1)
    found, expected = two_way_mean(a - b), stats.ttest_rel(a[0], b[0])
    low, high = expected.confidence_interval(0.95)
    assert found.p_value() == pytest.approx(expected.pvalue)
    assert (found.interval().low, found.interval().high) == pytest.approx((low, high))
    assert found.task_error == found.standard_error


def test_one_number_a_seed_is_students_t_over_seeds():
    x = drawn(7, 1)
    found, expected = two_way_mean(x), stats.ttest_1samp(x[:, 0], 5)
    assert found.p_value(5) == pytest.approx(expected.pvalue)
    assert found.task_error == 0


def test_two_ways_by_hand():
    # rows 2 4 6 and 4 8 6; means 4, 6 | 3, 6, 6 | 5: mean squares 6, 6 and 2; (6 + 6 - 2) / 6
    found = two_way_mean(np.array([[2.0, 4, 6], [4, 8, 6]]))
    assert found.value == 5
    assert found.standard_error == pytest.approx(math.sqrt(10 / 6))
    assert found.degrees_of_freedom == 1
    assert found.task_error == pytest.approx(math.sqrt(4 / 6))


def test_where_nothing_strays_nothing_is_uncertain():
    found = two_way_mean(np.full((3, 4), 2.0))
    assert (found.interval().low, found.interval().high) == (2, 2)
    assert (found.p_value(), found.p_value(2.0)) == (0, 1)
    assert math.isnan(two_way_mean(np.array([[1.0]])).p_value())
    assert math.isnan(two_way_mean(np.array([[1.0, np.inf]])).interval().low)


def test_only_seeds_that_both_have_are_paired():
    a, b = drawn(4, 9), drawn(4, 9, number=1)
    found = difference(given_scores(a[[2, 0, 1]], seeds=[5, 3, 4]), given_scores(b, seeds=[3, 4, 7, 5]))
    expected = two_way_mean(a[:3] - b[[0, 1, 3]])
    assert found == expected
    assert found.seeds == 3
    with pytest.raises(UsageError, match="m \\(seeds 0\\) and n \\(seeds 1\\) have no seed in common"):
        difference(given_scores(a[:1]), given_scores(b[:1], seeds=[1], method="n"))


def test_a_log_ratio_is_that_of_the_means_and_its_error_that_of_many_samples():
    samples = [
        (drawn(6, 50, 2 * k, (0.5, 0.5, 0.5)), drawn(6, 50, 2 * k, (0.2, 0.5, 0.5))) for k in range(400)
    ]
    found = [log_ratio(given_scores(a), given_scores(b)) for a, b in samples]
    a, b = samples[0]
    assert found[0].value == pytest.approx(math.log(a.mean() / b.mean()))
    root = math.sqrt(np.mean([c.standard_error**2 for c in found]))
    assert root == pytest.approx(np.std([c.value for c in found]), rel=0.1)
    with pytest.raises(UsageError, match="a ratio needs means above 0"):
        log_ratio(given_scores(a), given_scores(-b))


def test_an_unpaired_difference_of_one_seed_is_welchs():
    a, b = drawn(1, 12), drawn(1, 20, number=1)
    found, expected = unpaired_difference(a, b), stats.ttest_ind(a[0], b[0], equal_var=False)
    assert found.p_value() == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == pytest.approx(expected.df)


def test_seeds_of_what_is_not_random_say_no_more_than_one():
    (scores,) = drawn(1, 40)[None]
    assert summarise_method(np.tile(scores, (3, 1))) == summarise_method(scores)
    assert summarise_method(np.tile(scores, (3, 1))).intervals_over == "test tasks"


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
    assert holm([0.01, 0.004], among=3) == pytest.approx([0.02, 0.012])


def coverage(make, truth, seeds, tasks, repeats, spread):
    covered = 0
    for number in range(repeats):
        interval = make(drawn(seeds, tasks, number, spread))
        covered += interval.low <= truth <= interval.high
    return covered / repeats


SPREADS = [(1, 0, 1), (0, 1, 1), (1, 1, 1), (0, 0, 1), (0.3, 3, 1)]


@pytest.mark.parametrize("spread", SPREADS[1:3])
def test_intervals_of_differences_cover_the_truth(spread):
    found = coverage(lambda x: two_way_mean(x).interval(), 5.0, 5, 80, 800, spread)
    assert 0.925 <= found <= 0.995


@pytest.mark.nightly
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("seeds", [2, 5, 30])
def test_intervals_of_differences_cover_the_truth_at_all_sizes(spread, seeds):
    found = coverage(lambda x: two_way_mean(x).interval(), 5.0, seeds, 200, 4000, spread)
    assert 0.935 <= found <= 1.0


@pytest.mark.nightly
@pytest.mark.parametrize("spread", SPREADS)
def test_bootstrap_intervals_cover_the_truth_from_ten_seeds_on(spread):
    found = coverage(lambda x: summarise_method(x, "bootstrap").mean, 5.0, 10, 100, 1000, spread)
    assert 0.90 <= found <= 1.0


@pytest.mark.parametrize("seeds", [4, 5, 10, 30])
def test_what_is_typical_of_seeds_is_yuens_trimmed_mean(seeds):
    """scipy has it of one sample without test tasks: here there is one, so that nothing strays with it."""
    values = np.random.default_rng(seeds).standard_t(2, size=seeds)
    found = comparisons.typical_over_seeds(values)
    ours, theirs = found.interval(), stats.mstats.trimmed_mean_ci(values, (0.25, 0.25))
    assert found.value == pytest.approx(stats.trim_mean(values, 0.25))
    # scipy divides by 1 - 2 (0.25) also where a quarter of the seeds is no whole number
    cut = int(seeds / 4)
    scale = 0.5 / (1 - 2 * cut / seeds)
    assert ours.low == pytest.approx(found.value + (theirs[0] - found.value) * scale)
    assert ours.high == pytest.approx(found.value + (theirs[1] - found.value) * scale)


def test_what_is_typical_hardly_moves_for_a_run_that_broke():
    scores = np.random.default_rng(0).exponential(size=(10, 200))
    broken = scores.copy()
    broken[3] += 100
    whole, other = (
        comparisons.MethodScores("a", tuple(range(10)), values, {}) for values in (scores, broken)
    )  # fmt: skip
    still = comparisons.MethodScores("b", tuple(range(10)), scores + 0.3, {})
    one, two = (comparisons.typical_difference(still, side) for side in (whole, other))
    assert one.value == pytest.approx(0.3)
    assert abs(two.value - 0.3) < 1e-9
    assert abs(comparisons.difference(still, other).value) > 9


def test_intervals_of_what_is_typical_cover_it():
    """Seeds stray, one of ten by far, and so do tasks; the truth is the median over tasks of a usual seed."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(200):
        of_seeds = generator.normal(size=(10, 1)) + 30 * (generator.random((10, 1)) < 0.1)
        scores = np.exp(generator.normal(size=(1, 100)) + 0.1 * of_seeds)
        one = comparisons.MethodScores("a", tuple(range(10)), scores, {})
        other = comparisons.MethodScores("b", tuple(range(10)), np.ones_like(scores), {})
        interval = comparisons.typical_log_ratio(one, other).interval()
        held += interval.low <= 0.0 <= interval.high
    assert 0.90 <= held / 200 <= 0.995
