"""Axes, tick labels and marks that several figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.comparisons import typical_over_seeds
from metalearn_benchmarks.statistics.summaries import mean

LINEAR_UP_TO = 3.0
"""An axis stays linear where its largest value is less than this many times its smallest."""
LOG_TICK_DIGITS = ((10.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (100.0, (1.0, 2.0, 5.0)), (np.inf, (1.0,)))
"""The labelled digits of a logarithmic axis that spans less than a factor, for several factors."""
MARGIN_BELOW = 0.8
"""A logarithmic axis with a cut interval begins at this share of the lowest value."""


def scatter_with_mean(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    score: str,
    title: str | None,
    style: dict[str, Any],
    *,
    middle_half: bool = False,
) -> None:
    """Draw every run as a faint dot, and their mean as a marker with its 95 % interval.

    Args:
        axes: the axes to draw on.
        points: x and score of each run.
        score: the name of the score, which bounds the interval.
        middle_half: whether the mean is over the middle half of the runs, as a typical error is.
        title: the entry of the legend.
        style: the colour and the marker, as `style_of` gives them.
    """
    x, y = np.asarray(points, dtype=float).T
    if len(points) > 1:
        axes.plot(x, y, ".", color=style["color"], alpha=0.5, markersize=6)
    if middle_half:
        middle = typical_over_seeds(y).interval().clip_to_range(score)
    else:
        middle = mean(y).clip_to_range(score)
    bars = None if middle.low != middle.low else [[middle.value - middle.low], [middle.high - middle.value]]
    axes.errorbar([x.mean()], [middle.value], yerr=bars, label=title, linestyle="none", markersize=7, **style)


def set_step_axis(axes: Axes) -> None:
    """Make x the axis of inner steps: linear up to 10, logarithmic beyond."""
    last = axes.xaxis.get_data_interval()[1]
    axes.set_xscale("symlog", linthresh=10)
    ticks = [t for t in (0, 1, 2, 3, 4, 5, 8, 10, 20, 50, 100) if t <= last]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(-0.2, last + 0.2 if last <= 10 else 1.1 * last)
    axes.set_xlabel("inner step t")


def set_score_axis(axes: Axes, records: Sequence[Record]) -> None:
    """Make y the axis of the records' score: linear for accuracies, perhaps logarithmic for errors."""
    if not records[0].higher_is_better:
        set_log_axis(axes, "y")


def set_log_axis(axes: Axes, name: Literal["x", "y"], lowest: float | None = None) -> None:
    """Make an axis logarithmic with few, plain numbers, unless its values are close together.

    Args:
        axes: the axes, with everything drawn on them.
        name: which axis.
        lowest: the lowest of the values. Where an interval reaches 0 or less, the axis begins just
            below this value and cuts the interval off.
    """
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    cut = lowest if low <= 0 else None
    low = low if cut is None else cut
    if not 0 < low < high < np.inf or high < LINEAR_UP_TO * low:
        return
    (axes.set_xscale if name == "x" else axes.set_yscale)("log")
    if cut is not None:
        (axes.set_xlim if name == "x" else axes.set_ylim)(low * MARGIN_BELOW)
    digits = next(digits for factor, digits in LOG_TICK_DIGITS if high < factor * low)
    axis.set_major_locator(LogLocator(subs=digits, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def short_title(text: str, max_length: int = 36) -> str:
    """Shorten a title so that it fits over a panel."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def marker_spacing(count: int) -> int:
    """Return the spacing of markers on a curve of `count` points, so that about ten are drawn."""
    return max(1, count // 10)
