"""Figures of one or several panels, and the legend below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metalearn_benchmarks.plotting.style import FIGURE_WIDTH, TEXT_COLOUR

LEGEND_STYLE: Any = {"labelcolor": TEXT_COLOUR, "fontsize": 9, "columnspacing": 1.0}


def panel_grid(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels in two columns that share their axes, and the axes row by row.

    Args:
        count: the number of panels.
        height: the height of a row in inches.
    """
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(FIGURE_WIDTH, height * rows + 0.6), layout="constrained")
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid


def single_panel() -> tuple[Figure, Axes]:
    """Return a figure of one panel, and its axes."""
    figure = Figure(figsize=(FIGURE_WIDTH, 3.4), layout="constrained")
    return figure, figure.add_subplot()


def add_legend(figure: Figure, panels: Sequence[Axes]) -> Figure:
    """Add one legend for these panels below the figure, which grows by the legend's height.

    Returns:
        The same figure.
    """
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            entries.setdefault(label, handle)
    columns = 2 if max(map(len, entries), default=0) < 30 else 1
    figure.set_figheight(figure.get_figheight() + 0.23 * -(-len(entries) // columns))
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=columns, **LEGEND_STYLE
    )
    return figure
