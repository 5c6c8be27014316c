"""The effects that claims are about, from evidence: differences, ratios, wall times, and how spread grows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
from scipy import stats

from metalearn_benchmarks.claims.evidence import Evidence
from metalearn_benchmarks.claims.rules import TestRule
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.comparisons import (
    Contrast,
    difference,
    log_ratio,
    two_way,
    typical_difference,
    typical_log_ratio,
    unpaired_difference,
)
from metalearn_benchmarks.statistics.estimate import Estimate
from metalearn_benchmarks.statistics.growth import Growth
from metalearn_benchmarks.statistics.paired_scores import Scores
from metalearn_core.errors import UsageError

FAR = 1000
"""More seeds than these are not advised: the effect lies at the threshold then."""


@attrs.frozen(eq=False)
class Effect:
    """An effect with its uncertainty, or what it lacks.

    Args:
        contrast: of a ratio, its logarithm; None where it cannot be formed.
        ratio: whether it is one.
        lacks: what is missing before it may decide anything, a line each.
        of: what more seeds would be of, in words.
    """

    label: str
    contrast: Contrast | Growth | None
    ratio: bool
    lacks: tuple[str, ...]
    of: str = ""

    @property
    def seeds(self) -> int:
        """How many seeds it is from."""
        return 0 if self.contrast is None else self.contrast.seeds

    @property
    def tasks(self) -> int:
        """How many test tasks it is from."""
        return 0 if self.contrast is None else self.contrast.tasks

    def estimate(self, confidence: float) -> Estimate | None:
        """The effect with its interval, in the unit of its region."""
        if self.contrast is None:
            return None
        found = self.contrast.interval(confidence)
        if not self.ratio:
            return found
        low, value, high = (float(np.exp(x)) for x in (found.low, found.value, found.high))
        return Estimate(value, low, high)

    def more(self, least: float, most: float, confidence: float) -> list[str]:
        """How many seeds more would take the interval off the threshold, if the effect stays what it is."""
        found = self.contrast
        if not isinstance(found, Contrast) or not math.isfinite(found.error):
            return [f"{self.label}: more seeds of {self.of}"]
        bounds = [math.log(b) if self.ratio and b > 0 else b for b in (least, most)]
        distance = min(abs(found.value - bound) for bound in bounds)
        of_seeds = max(found.error**2 - found.error_of_tasks**2, 0.0) * found.seeds
        for count in range(found.seeds + 1, FAR):
            t = float(stats.t.ppf((1 + confidence) / 2, count - 1))
            if t * math.sqrt(found.error_of_tasks**2 + of_seeds / count) < distance:
                return [
                    f"{self.label}: about {count - found.seeds} more seeds of {self.of}, if the effect stays"
                ]
        if found.error_of_tasks > 0.05 * found.error and 2 * found.error_of_tasks >= distance:
            return [f"{self.label}: more test tasks than {found.tasks}"]
        return [f"{self.label}: the effect lies at the threshold; {FAR} seeds would hardly settle it"]


def of_scores(test: TestRule, one: Evidence, other: Evidence, same_tasks: bool = True) -> Effect:
    """The difference (turned so that more is better), or the ratio, of what two methods score."""
    ratio = test.measure == "ratio"
    label, of = _label(one, "/" if ratio else "over", other), _label(one, "and", other)
    if one.scores is None or other.scores is None:
        return Effect(label, None, ratio, one.lacks + other.lacks, of)
    lost = _not_finite(one) + _not_finite(other)
    if lost:
        return Effect(label, None, ratio, lost, of)
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
        return Effect(label, None, ratio, (str(error),), of)
    return Effect(label, contrast, ratio, _seeds_missing(test, contrast.seeds, one, other), of)


def of_seconds(test: TestRule, one: Evidence, other: Evidence) -> Effect:
    """The wall time of one method over that of another: the geometric mean over programs of like seeds."""
    label, of = f"seconds of {_label(one, '/', other)}", _label(one, "and", other)
    if not one.runs or not other.runs:
        return Effect(label, None, True, one.lacks + other.lacks, of)
    places = sorted({_place(run) for run in (*one.runs, *other.runs)})
    if len(places) > 1:
        lack = f"{of} were timed in unlike ways ({'; '.join(places)}); run them alike"
        return Effect(label, None, True, (lack,), of)
    seconds = [_of_programs(side.runs) for side in (one, other)]
    both = sorted(seconds[0].keys() & seconds[1].keys())
    if not both:
        return Effect(label, None, True, (f"{of} have no seeds in common; run the same seeds",), of)
    contrast = two_way(np.array([[math.log(seconds[0][key] / seconds[1][key])] for key in both]))
    lacks = _seeds_missing(test, sum(map(len, both)), one, other)
    if len(both) < test.seeds and not lacks:
        lacks = (
            f"{of} were timed {len(both)} time(s), since seeds that train as one program share its clock;"
            f" {test.seeds} are asked for: run `{one.command} --seeds {test.seeds} --together 1`, and so for"
            f" {other.method}",
        )
    return Effect(label, contrast, True, lacks, of)


def _of_programs(runs: Sequence[Record]) -> dict[tuple[int, ...], float]:
    """The wall time of each program, by the seeds that trained in it."""
    programs: dict[tuple[int, ...], list[float]] = {}
    for run in runs:
        together = tuple(run.result.get("seeds_together") or [run.seed])
        programs.setdefault(together, []).append(float(run.result["seconds"]))
    return {together: sum(found) / len(found) for together, found in programs.items()}


def _label(one: Evidence, sign: str, other: Evidence) -> str:
    """Two methods, and where they are compared."""
    if one.place == other.place:
        return f"{one.method} {sign} {other.method} {one.place}"
    return f"{one.title} {sign} {other.title}"


def _place(run: Record) -> str:
    """What wall time depends on beside the method: machine, engine, threads, seeds together."""
    facts = [str(run.result.get(key)) for key in ("device", "engine")]
    together = len(run.result.get("seeds_together") or [run.seed])
    return f"{', '.join(facts)}, {run.result.get('threads')} thread(s), {together} seed(s) together"


def of_spread(test: TestRule, rows: Sequence[Sequence[tuple[int, Evidence]]]) -> Effect:
    """By what the spread over seeds of the mean score grows when T doubles, of all rows together."""
    sides = [side for row in rows for _, side in row]
    methods = list(dict.fromkeys(side.method for side in sides))
    where = sides[0].place.partition(" with T")[0]
    others = f" and {methods[-1]}" if len(methods) == 2 else f" and {len(methods) - 1} others"
    whose = f"{methods[0]}{others if len(methods) > 1 else ''} {where}"
    label, of = f"growth of the spread of {whose} when T doubles", f"{whose} at each T"
    lacks = tuple(line for side in sides for line in side.lacks or _not_finite(side))
    lacks += tuple(line for side in sides if side.runs for line in _seeds_missing(test, len(side.runs), side))
    scores = [{t: _of_seeds(side.scores) for t, side in row if side.scores is not None} for row in rows]
    if any(side.scores is None or len(side.runs) < 3 for side in sides) or any(map(_not_finite, sides)):
        return Effect(label, None, True, lacks, of)
    tasks = {side.scores.values.shape[1] for side in sides if side.scores is not None}
    growth = Growth(scores, min(len(side.runs) for side in sides), min(tasks))
    if not math.isfinite(growth.value):
        return Effect(
            label, None, True, ("seeds do not differ at all at some T: their spread has no ratio",), of
        )
    return Effect(label, growth, True, tuple(dict.fromkeys(lacks)), of)


def _of_seeds(scores: Scores) -> dict[int, float]:
    """The mean score of each seed."""
    return dict(zip(scores.seeds, scores.values.mean(1).tolist(), strict=True))


def _not_finite(side: Evidence) -> tuple[str, ...]:
    if side.scores is None or np.isfinite(side.scores.values).all():
        return ()
    broken = ~np.isfinite(side.scores.values)
    seeds = [str(seed) for seed, row in zip(side.scores.seeds, broken, strict=True) if row.any()]
    return (
        f"{int(broken.sum())} score(s) of {side.title} are not finite (seed {', '.join(seeds)}), so there is"
        " no mean; a run that does not diverge",
    )


def _seeds_missing(test: TestRule, common: int, *sides: Evidence) -> tuple[str, ...]:
    """A line for each side that has too few seeds, or for both where too few are common."""
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
