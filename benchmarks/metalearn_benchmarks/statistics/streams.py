"""Two rows over several streams of tasks: the comparison that the plan of the runs fixed beforehand.

A run is one seed on one stream. Seeds of two methods are not pairs: the same number draws other weights for
another rule, and even the same rule ends elsewhere when it is trained again. Test tasks are pairs, since all
runs of a stream are tested on the same ones. So each draw of the bootstrap takes runs anew within each stream
and for each row by itself, and the test tasks of each stream once for both rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import attrs
import numpy as np

from metalearn_benchmarks.statistics.comparisons import middle_mean
from metalearn_benchmarks.statistics.estimate import Array, Estimate
from metalearn_benchmarks.statistics.task_medians import medians_over_tasks
from metalearn_core.errors import UsageError

DRAWS = 4000


@attrs.frozen
class StreamContrast:
    """The logarithm of the ratio of two rows' typical errors, over all streams and on each.

    Args:
        value: ln(typical error of one / typical error of the other), all streams together.
        low, high: the ends of its percentile interval at 95 %.
        p_value: two-sided, of a ratio of 1.
        by_stream: the same logarithm on each stream alone.
        runs: how many runs the two rows have.
    """

    value: float
    low: float
    high: float
    p_value: float
    by_stream: Mapping[int, float]
    runs: tuple[int, int]

    def ratio(self) -> Estimate:
        """Return the ratio itself with its interval."""
        return Estimate(*(math.exp(x) for x in (self.value, self.low, self.high)))

    def which_is_ahead(self, adjusted: float | None = None) -> Literal["one", "other"] | None:
        """Return the row that is lower beyond chance over all streams, and lower on each; None: not told.

        Args:
            adjusted: the p-value after Holm's correction. None: that of this comparison alone.
        """
        if not (self.p_value if adjusted is None else adjusted) < 0.05:
            return None
        ratios = [self.value, *self.by_stream.values()]
        if self.high < 0 and max(ratios) < 0:
            return "one"
        return "other" if self.low > 0 and min(ratios) > 0 else None


def typical_log_ratio_over_streams(one: Mapping[int, Array], other: Mapping[int, Array]) -> StreamContrast:
    """Return ln of the ratio of two rows' typical errors; each row by stream, `[runs, tasks]`.

    Raises:
        UsageError: the rows have other streams, or other numbers of test tasks on one.
    """
    _require_same_streams(one, other)
    generator = np.random.default_rng([4, len(one)])
    drawn: tuple[list[Array], list[Array]] = ([], [])
    own: tuple[list[Array], list[Array]] = ([], [])
    for stream in sorted(one):
        sides = [medians_over_tasks(side[stream]) for side in (one, other)]
        which = generator.integers(len(sides[0][1]), size=DRAWS)  # one draw of the tasks, for both rows
        for place, (medians, of_draws) in enumerate(sides):
            runs = generator.integers(len(medians), size=(DRAWS, len(medians)))
            drawn[place].append(of_draws[which[:, None], runs])
            own[place].append(medians)
    ours, theirs = (middle_mean(np.concatenate(side, axis=1)) for side in drawn)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.log(ours) - np.log(theirs)
        value = float(np.subtract(*(np.log(middle_mean(np.concatenate(side))) for side in own)))
        by_stream = {
            stream: float(np.log(middle_mean(own[0][place])) - np.log(middle_mean(own[1][place])))
            for place, stream in enumerate(sorted(one))
        }
    runs_of = (sum(map(len, own[0])), sum(map(len, own[1])))
    if not (math.isfinite(value) and np.isfinite(ratios).all()):  # a quarter of the runs diverged
        return StreamContrast(value, math.nan, math.nan, math.nan, by_stream, runs_of)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return StreamContrast(value, float(low), float(high), _two_sided(ratios), by_stream, runs_of)


def _two_sided(ratios: Array) -> float:
    """Twice the smaller share of draws on one side of 0, which no number of draws makes 0."""
    below, above = np.count_nonzero(ratios <= 0), np.count_nonzero(ratios >= 0)
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(ratios) + 1)))


def _require_same_streams(one: Mapping[int, Array], other: Mapping[int, Array]) -> None:
    if set(one) != set(other) or not one:
        raise UsageError(
            f"the rows have the streams {sorted(one)} and {sorted(other)}; compare rows of the same streams"
        )
    for stream, scores in one.items():
        if scores.shape[1] != other[stream].shape[1]:
            raise UsageError(
                f"on stream {stream} the rows have {scores.shape[1]} and {other[stream].shape[1]} test tasks;"
                " compare runs of the same tasks"
            )
