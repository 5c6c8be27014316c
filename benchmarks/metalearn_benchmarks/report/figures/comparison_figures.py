"""The first figures of a setting: every method with its interval, and the differences from the best."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metalearn_benchmarks.host.escape import for_figure
from metalearn_benchmarks.plotting.axes import set_log_axis
from metalearn_benchmarks.plotting.style import FIGURE_WIDTH, TEXT_COLOUR, UNDECIDED, MethodStyles
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.records.row_names import compact_title, title_without_steps
from metalearn_benchmarks.report.tables.result_table import ResultTable, Row
from metalearn_benchmarks.statistics.headline import number_of_run

ROW, EDGES, HEAD = 0.34, 0.75, 0.3
"""Heights in inches: of a row, of the axis below all rows, and of the title of a group."""
LETTERS = 26
"""The most letters of a line of a method's name."""


def score_dots(table: ResultTable, records: Sequence[Record], styles: MethodStyles) -> Figure:
    """Draw the headline of every method with its interval, and a faint dot for each run.

    Args:
        table: the table of a setting; rows are drawn in its order.
        records: the runs of the setting.
        styles: the colour and the marker of each method.
    """
    figure, panels = _panels(table, [len(rows) for rows in table.groups])
    lowest = []
    for axes, rows in zip(panels, table.groups, strict=True):
        for place, row in enumerate(rows):
            own = [run.final for run in records if run.method == row.method]
            finite = [x for x in (number_of_run(f, table.higher_is_better) for f in own) if np.isfinite(x)]
            lowest += finite
            style = styles[row.method]
            axes.plot(finite, [place] * len(finite), ".", color=style["color"], alpha=0.4, markersize=5)
            estimate = row.headline
            _mark(axes, estimate.value, (estimate.low, estimate.high), place, style)
        _name_rows(axes, table, rows)
    if not table.higher_is_better:
        for axes in panels:
            set_log_axis(axes, "x", min(lowest, default=None))
    unit = "" if table.score in table.headline else f" ({for_figure(table.score)})"
    panels[-1].set_xlabel(f"{for_figure(table.headline)}{unit}")
    return figure


def difference_forest(table: ResultTable, records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw the paired difference of each method from the reference; None where there is none to draw.

    A difference that is told from chance has the method's colour; any other is hollow and grey.

    Args:
        table: the table of a setting.
        records: the runs of the setting.
        styles: the colour and the marker of each method.
    """
    groups = [rows for rows in table.groups if any(row.difference for row in rows)]
    if not groups:
        return None
    figure, panels = _panels(table, [len(rows) for rows in groups])
    for axes, rows in zip(panels, groups, strict=True):
        for place, row in enumerate(rows):
            if row.reference:
                axes.plot([0], [place], **styles[row.method], markersize=6, linestyle="none")
            if row.difference is None:
                continue
            estimate = row.difference.interval()
            style = dict(styles[row.method])
            if not row.differs:
                style |= {"color": UNDECIDED, "markerfacecolor": "none"}
            _mark(axes, estimate.value, (estimate.low, estimate.high), place, style)
        axes.axvline(0, color=TEXT_COLOUR, linewidth=0.8, zorder=0)
        _name_rows(axes, table, rows)
    panels[-1].set_xlabel(f"{for_figure(table.headline)}, minus that of {for_figure(table.reference)}")
    return figure


def _panels(table: ResultTable, counts: Sequence[int]) -> tuple[Figure, list[Axes]]:
    """A panel for each group of rows, as high as its rows need, that share the axis of scores."""
    heights = [ROW * (count + 0.6) + (HEAD if len(table.groups) > 1 else 0) for count in counts]
    figure = Figure(figsize=(FIGURE_WIDTH, sum(heights) + EDGES), layout="constrained")
    grid = figure.subplots(len(counts), 1, sharex=True, squeeze=False, height_ratios=heights)
    return figure, list(grid[:, 0])


def _mark(axes: Axes, value: float, bounds: tuple[float, float], place: int, style: dict[str, Any]) -> None:
    low, high = bounds
    bars = None if low != low else [[value - low], [high - value]]
    axes.errorbar(
        [value], [place], xerr=bars, linestyle="none", markersize=6, capsize=3, elinewidth=1.3, **style
    )


def _name_rows(axes: Axes, table: ResultTable, rows: Sequence[Row]) -> None:
    several = len(table.groups) > 1
    names = [compact_title(title_without_steps(row.title) if several else row.title) for row in rows]
    labels = ["\n".join(textwrap.wrap(for_figure(name), LETTERS)[:2]) for name in names]
    axes.set_yticks(range(len(rows)), labels, fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", color=TEXT_COLOUR, alpha=0.15, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    if several:
        axes.set_title(f"T = {rows[0].group}", fontsize="medium", loc="left")
