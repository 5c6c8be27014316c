"""A demonstration as a picture, and as characters for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metalearn_benchmarks.artifacts.demonstration import Demonstration
from metalearn_benchmarks.host.text_plot import TextPlot
from metalearn_benchmarks.plotting.panels import add_legend, panel_grid
from metalearn_benchmarks.plotting.style import COLOURS, RC_PARAMS, TEXT_COLOUR

ROWS = 11
"""Lines of a plot of characters."""
LEGEND = ". the wave   - before adapting   * after it   O the points it adapts to"
"""What the characters of a plot mean."""


def draw(shown: Sequence[Demonstration]) -> Figure:
    """Draw for each rule what it predicts of the first task, before adapting and after each step."""
    with matplotlib.rc_context(RC_PARAMS):
        figure, panels = panel_grid(len(shown), 3.0)
        for index, (axes, one) in enumerate(zip(panels, shown, strict=True)):
            _draw_rule(axes, one, COLOURS[index])
        panels[0].set_ylabel("y")
        return add_legend(figure, panels)


def _draw_rule(axes: Axes, one: Demonstration, colour: str) -> None:
    steps = len(one.predictions) - 1
    axes.plot(*one.truth, ".", color=TEXT_COLOUR, markersize=4, label="the wave")
    axes.plot(*one.support, "o", color=TEXT_COLOUR, markersize=7, label="the points it adapts to")
    for step, prediction in enumerate(one.predictions):
        style, label, alpha = "--", f"after 1 to {steps - 1} steps", 0.35
        if step in (0, steps):
            style = ":" if step == 0 else "-"
            label, alpha = ("before adapting" if step == 0 else f"after {steps} steps"), 1.0
        axes.plot(one.grid, prediction, style, color=colour, linewidth=1.8, alpha=alpha, label=label)
    before, after = one.errors[0, 0], one.errors[0, -1]
    axes.set_xlabel("x")
    axes.set_title(f"{one.title}\nerror {before:.2f}, then {after:.2f}", fontsize=10)


def as_characters(shown: Demonstration, width: int) -> list[str]:
    """Return the lines of a plot of the first task.

    Args:
        shown: What is shown.
        width: Columns of the terminal.
    """
    values = torch.cat([shown.truth[1], shown.support[1]])
    room = max(0.15 * float(values.max() - values.min()), 0.1)
    plot = TextPlot(
        width, ROWS, (float(shown.grid[0]), float(shown.grid[-1])),
        (float(values.min()) - room, float(values.max()) + room),
    )  # fmt: skip
    for mark, (x, y) in (
        ("-", (shown.grid, shown.predictions[0])),
        (".", shown.truth),
        ("*", (shown.grid, shown.predictions[-1])),
        ("O", shown.support),
    ):
        plot.add(mark, x.tolist(), y.tolist())
    return plot.lines()
