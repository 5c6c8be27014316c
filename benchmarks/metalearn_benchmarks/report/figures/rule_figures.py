"""Figures of what each trained rule does: its response to a gradient, and its updates over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from metalearn_benchmarks.plotting.axes import set_log_axis, set_step_axis, short_title
from metalearn_benchmarks.plotting.panels import LEGEND_STYLE, add_legend, panel_grid
from metalearn_benchmarks.plotting.style import (
    COLOURS,
    FIGURE_WIDTH,
    MAX_PANELS,
    TEXT_COLOUR,
    MethodStyles,
)
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.figures.drawing import SettingFigure, labelled_runs

MAX_OTHER_SEEDS = 4
"""The most seeds that are drawn as thin lines behind the first."""
REFERENCE_RATE = 0.01
"""The inner learning rate of the dotted line, which is that of MAML in the paper."""


def rule_responses(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw the update of a coordinate against its gradient, first and last step, a panel per method."""
    shown = [
        (title, known)
        for title, runs in labelled_runs(records)
        if (known := _recorded_parts(runs, "response"))
    ]
    if not shown:
        return None
    figure, grid = panel_grid(len(shown[:MAX_PANELS]), height=2.0)
    for axes, (title, found) in zip(grid, shown, strict=False):
        _draw_response(axes, title, found)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, **LEGEND_STYLE)
    figure.supxlabel("gradient g of a coordinate", fontsize="medium", color=TEXT_COLOUR)
    figure.supylabel("its update, θ⁽ᵗ⁺¹⁾ − θ⁽ᵗ⁾", fontsize="medium", color=TEXT_COLOUR)
    return figure


def _recorded_parts(runs: Sequence[Record], part: str) -> list[dict[str, Any]]:
    """One part of the recorded responses; old records have none."""
    found = [(run.result.get("rule_response") or {}).get(part) for run in runs]
    return [one for one in found if one]


def _draw_response(axes: Axes, title: str, found: Sequence[dict[str, Any]]) -> None:
    g = np.asarray(found[0]["gradients"])
    axes.plot(g, -REFERENCE_RATE * g, ":", color=TEXT_COLOUR, label=f"−{REFERENCE_RATE} g")
    for one in found[1 : MAX_OTHER_SEEDS + 1]:
        axes.plot(
            g,
            _quantile_curves(one, 0)[len(one["quantiles"]) // 2],
            color=COLOURS[0],
            alpha=0.6,
            linewidth=0.8,
        )
    for step, line, colour, label in ((0, "-", COLOURS[0], "t = 0"), (-1, "--", COLOURS[1], "t = T − 1")):
        curves = _quantile_curves(found[0], step)
        if len(curves) > 1:
            axes.fill_between(g, curves[0], curves[-1], color=colour, alpha=0.2, linewidth=0)
        axes.plot(g, curves[len(curves) // 2], line, color=colour, label=label, linewidth=1.4)
    axes.set_xscale("symlog", linthresh=1e-3, linscale=0.5)
    axes.set_yscale("symlog", linthresh=1e-4, linscale=0.5)
    axes.set_xticks([-10, -0.1, 0, 0.1, 10], ["−10", "−0.1", "0", "0.1", "10"])
    axes.set_yticks([-1, -1e-2, 0, 1e-2, 1], ["−1", "−0.01", "0", "0.01", "1"])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.set_title(short_title(title), fontsize=8)


def _quantile_curves(response: dict[str, Any], step: int) -> list[np.ndarray[Any, Any]]:
    """The curves of one step, one for each quantile of coordinates; a null in a record becomes NaN."""
    return [np.asarray(values, dtype=float) for values in response["updates"][step]]


def update_paths(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw size, size per gradient and alignment of the updates over the inner steps of test tasks."""
    figure = Figure(figsize=(FIGURE_WIDTH, 6.4), layout="constrained")
    panels, drawn = list(figure.subplots(3, 1, sharex=True)), False
    for title, runs in labelled_runs(records):
        found = _recorded_parts(runs, "path")
        if not found:
            continue
        drawn = True
        size, gradient, alignment = (
            np.mean([np.asarray(one[key], dtype=float) for one in found], axis=0)
            for key in ("update", "gradient", "alignment")
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = size / gradient
        for axes, values in zip(panels, (size, ratio, alignment), strict=True):
            axes.plot(found[0]["steps"], values, label=title, markersize=4, **styles[runs[0].method])
    if not drawn:
        return None
    _label_paths(panels)
    return add_legend(figure, panels[:1])


def _label_paths(panels: Sequence[Axes]) -> None:
    for axes, label in zip(panels, ("size of the update", "size per gradient", "alignment"), strict=True):
        axes.set_ylabel(label)
    for axes in panels[:2]:
        set_log_axis(axes, "y")
    panels[2].set_ylim(-1.05, 1.05)
    panels[2].axhline(0, color=TEXT_COLOUR, linewidth=0.6)
    set_step_axis(panels[2])


FIGURES: dict[str, SettingFigure] = {
    "rule-response": SettingFigure(
        "The update as a function of the gradient",
        "What each trained rule adds to a coordinate at θ = 0 whose gradient is g at every step: first step"
        " and last, first seed; thin lines are up to four other seeds at the first step. Where each"
        " coordinate has a learning rate of its own, the line is their median and the shade spans 80 % of"
        f" them. The dotted line is gradient descent with a rate of {REFERENCE_RATE}. Both axes are linear"
        f" around 0 and logarithmic beyond; {MAX_PANELS} methods at most.",
        rule_responses,
    ),
    "rule-path": SettingFigure(
        "The updates over the steps",
        "On the first 20 test tasks, means over tasks and seeds. Size: root mean square over coordinates, of"
        " the update (top) and divided by that of the gradient as the rule sees it (middle): for gradient"
        " descent the learning rate. Alignment: the cosine of the update and the negative gradient, 1 for"
        " gradient descent.",
        update_paths,
    ),
}
"""The figures, by the end of their file names."""
