"""The effects that claims are about: differences, ratios, wall times, and the growth of the spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from metalearn_benchmarks.claims.effect import Effect
from metalearn_benchmarks.claims.evidence import Evidence
from metalearn_benchmarks.claims.rules import TestRule
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.comparisons import (
    difference,
    log_ratio,
    two_way_mean,
    typical_difference,
    typical_log_ratio,
    unpaired_difference,
)
from metalearn_benchmarks.statistics.growth import SpreadGrowth
from metalearn_benchmarks.statistics.paired_scores import MethodScores
from metalearn_core.errors import UsageError


def score_effect(test: TestRule, one: Evidence, other: Evidence, same_tasks: bool = True) -> Effect:
    """Compare the scores of two methods.

    Args:
        test: the test; its `measure` and `statistic` choose the comparison.
        one: the runs of the first method.
        other: the runs of the second method.
        same_tasks: whether both were tested on the same tasks, so that their scores are paired.

    Returns:
        The ratio of their scores, or their difference with a sign such that a positive one is in favour of
        `one`.
    """
    ratio = test.measure == "ratio"
    label, methods = _label(one, "/" if ratio else "over", other), _label(one, "and", other)
    if one.scores is None or other.scores is None:
        return Effect(label, None, ratio, one.missing + other.missing, methods)
    lost = _not_finite_scores(one) + _not_finite_scores(other)
    if lost:
        return Effect(label, None, ratio, lost, methods)
    up = one.runs[0].higher_is_better
    better, worse = (one.scores, other.scores) if up else (other.scores, one.scores)
    try:
        if test.statistic == "typical":
            contrast = (typical_log_ratio if ratio else typical_difference)(
                *((one.scores, other.scores) if ratio else (better, worse))
            )
        elif ratio:
            contrast = log_ratio(one.scores, other.scores)
        elif same_tasks:
            contrast = difference(better, worse)
        else:
            contrast = unpaired_difference(better.values, worse.values)
    except UsageError as error:
        return Effect(label, None, ratio, (str(error),), methods)
    return Effect(label, contrast, ratio, _missing_seeds(test, contrast.seeds, one, other), methods)


def wall_time_effect(test: TestRule, one: Evidence, other: Evidence) -> Effect:
    """Compare the wall times of two methods.

    Args:
        test: the test, which says how many seeds are needed.
        one: the runs of the first method.
        other: the runs of the second method.

    Returns:
        The ratio of their wall times: the geometric mean over pairs of programs that trained the same seeds.
    """
    label, methods = f"seconds of {_label(one, '/', other)}", _label(one, "and", other)
    if not one.runs or not other.runs:
        return Effect(label, None, True, one.missing + other.missing, methods)
    places = sorted({_timing_conditions(run) for run in (*one.runs, *other.runs)})
    if len(places) > 1:
        lack = f"{methods} were timed in unlike ways ({'; '.join(places)}); run them alike"
        return Effect(label, None, True, (lack,), methods)
    seconds = [_seconds_by_program(side.runs) for side in (one, other)]
    both = sorted(seconds[0].keys() & seconds[1].keys())
    if not both:
        return Effect(label, None, True, (f"{methods} have no seeds in common; run the same seeds",), methods)
    contrast = two_way_mean(np.array([[math.log(seconds[0][key] / seconds[1][key])] for key in both]))
    missing = _missing_seeds(test, sum(map(len, both)), one, other)
    if len(both) < test.seeds and not missing:
        missing = (
            f"{methods} were timed {len(both)} time(s), since seeds that train as one program share its"
            f" clock; {test.seeds} are asked for: run `{one.command} --seeds {test.seeds} --together 1`,"
            f" and so for {other.method}",
        )
    return Effect(label, contrast, True, missing, methods)


def _seconds_by_program(runs: Sequence[Record]) -> dict[tuple[int, ...], float]:
    """The wall time of each program in seconds, by the seeds that trained in it."""
    programs: dict[tuple[int, ...], list[float]] = {}
    for run in runs:
        together = tuple(run.result.get("seeds_together") or [run.seed])
        programs.setdefault(together, []).append(float(run.result["seconds"]))
    return {together: sum(found) / len(found) for together, found in programs.items()}


def _label(one: Evidence, sign: str, other: Evidence) -> str:
    """Two methods and the setting that they are compared in."""
    if one.place == other.place:
        return f"{one.method} {sign} {other.method} {one.place}"
    return f"{one.title} {sign} {other.title}"


def _timing_conditions(run: Record) -> str:
    """What wall time depends on beside the method: device, engine, threads, seeds in one program."""
    facts = [str(run.result.get(key)) for key in ("device", "engine")]
    together = len(run.result.get("seeds_together") or [run.seed])
    return f"{', '.join(facts)}, {run.result.get('threads')} thread(s), {together} seed(s) together"


def spread_growth_effect(test: TestRule, rows: Sequence[Sequence[tuple[int, Evidence]]]) -> Effect:
    """Return the growth of the spread over seeds when T doubles, for all rows together.

    Args:
        test: the test, which says how many seeds are needed.
        rows: for each row, T and the runs at that T.
    """
    sides = [side for row in rows for _, side in row]
    names = list(dict.fromkeys(side.method for side in sides))
    where = sides[0].place.partition(" with T")[0]
    others = f" and {names[-1]}" if len(names) == 2 else f" and {len(names) - 1} others"
    whose = f"{names[0]}{others if len(names) > 1 else ''} {where}"
    label, methods = f"growth of the spread of {whose} when T doubles", f"{whose} at each T"
    missing = tuple(line for side in sides for line in side.missing or _not_finite_scores(side))
    missing += tuple(
        line for side in sides if side.runs for line in _missing_seeds(test, len(side.runs), side)
    )
    scores = [
        {t: _mean_score_by_seed(side.scores) for t, side in row if side.scores is not None} for row in rows
    ]
    if any(side.scores is None or len(side.runs) < 3 for side in sides) or any(
        map(_not_finite_scores, sides)
    ):
        return Effect(label, None, True, missing, methods)
    tasks = {side.scores.values.shape[1] for side in sides if side.scores is not None}
    growth = SpreadGrowth(scores, min(len(side.runs) for side in sides), min(tasks))
    if not math.isfinite(growth.value):
        return Effect(
            label, None, True, ("seeds do not differ at all at some T: their spread has no ratio",), methods
        )
    return Effect(label, growth, True, tuple(dict.fromkeys(missing)), methods)


def _mean_score_by_seed(scores: MethodScores) -> dict[int, float]:
    """The mean score of each seed over its test tasks."""
    return dict(zip(scores.seeds, scores.values.mean(1).tolist(), strict=True))


def _not_finite_scores(side: Evidence) -> tuple[str, ...]:
    if side.scores is None or np.isfinite(side.scores.values).all():
        return ()
    broken = ~np.isfinite(side.scores.values)
    seeds = [str(seed) for seed, row in zip(side.scores.seeds, broken, strict=True) if row.any()]
    return (
        f"{int(broken.sum())} score(s) of {side.title} are not finite (seed {', '.join(seeds)}), so there is"
        " no mean; a run that does not diverge",
    )


def _missing_seeds(test: TestRule, common: int, *sides: Evidence) -> tuple[str, ...]:
    """A line for each side that has too few seeds, or for both where they share too few."""
    if common >= test.seeds:
        return ()
    lines = [
        f"{test.seeds - len(side.runs)} more seed(s) of {side.title};"
        f" run `{side.command} --seeds {test.seeds}`"
        for side in sides
        if len(side.runs) < test.seeds
    ]
    return tuple(dict.fromkeys(lines)) or (
        f"{test.seeds} seeds that {' and '.join(side.title for side in sides)} have in common;"
        f" run `{sides[0].command} --seeds {test.seeds}`",
    )
