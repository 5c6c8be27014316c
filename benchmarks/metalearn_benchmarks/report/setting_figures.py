"""The figures of one setting: scores, learning curves, costs and predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metalearn_benchmarks.host.escape import for_figure
from metalearn_benchmarks.plotting.axes import (
    marker_spacing,
    scatter_with_mean,
    set_log_axis,
    set_score_axis,
    set_step_axis,
    short_title,
)
from metalearn_benchmarks.plotting.panels import LEGEND_STYLE, add_legend, panel_grid, single_panel
from metalearn_benchmarks.plotting.style import (
    COLOURS,
    FIGURE_WIDTH,
    MAX_PANELS,
    TEXT_COLOUR,
    MethodStyles,
)
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.figure_drawing import SettingFigure, labelled_runs


def error_by_step(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw the mean query score before adaptation and after each inner step, over test tasks and seeds."""
    figure, axes = single_panel()
    for title, runs in labelled_runs(records):
        curve = np.mean([run.by_step for run in runs], axis=0)
        # methods that take a hundred steps share the axis with those that take five
        steps = np.arange(len(curve))
        axes.plot(
            steps,
            curve,
            label=title,
            markevery=marker_spacing(len(steps)),
            markersize=5,
            **styles[runs[0].method],
        )
    set_step_axis(axes)
    set_score_axis(axes, records)
    axes.set_ylabel(f"{for_figure(records[0].score)}, query set")
    return add_legend(figure, [axes])


def validation_curves(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw the validation score against the number of meta-training tasks: mean and range over seeds."""
    (figure, axes), drawn = single_panel(), False
    for title, runs in labelled_runs(records):
        curves = [run.result["validations"] for run in runs if len(run.result.get("validations", ())) > 1]
        if runs[0].cell["method"]["start"] != "meta" or not curves:
            continue
        drawn = True
        x, y = _common_positions(curves)
        style = styles[runs[0].method]
        average, low, high = y.mean(0), y.min(0), y.max(0)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(
            x, average, label=title, markersize=3, linewidth=1.2, markevery=marker_spacing(len(x)), **style
        )
    if not drawn:
        return None
    set_score_axis(axes, records)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("meta-training tasks")
    axes.set_ylabel(f"{for_figure(records[0].score)}, validation")
    return add_legend(figure, [axes])


def _common_positions(
    curves: Sequence[Sequence[Sequence[float]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions `[k]` that all seeds reached, and scores `[seeds, k]`; a null in a record becomes NaN."""
    arrays = [np.asarray(curve, dtype=float) for curve in curves]
    shortest = min(map(len, arrays))
    return arrays[0][:shortest, 0], np.stack([array[:shortest, 1] for array in arrays])


def cost_scatter(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw the final score of every run against its wall time and against its peak memory."""
    figure = Figure(figsize=(FIGURE_WIDTH, 5.6), layout="constrained")
    panels = figure.subplots(2, 1, sharey=True)
    scales = (("seconds", 1.0, "wall time of a run, s"), ("peak_memory_bytes", 2**20, "peak memory, MiB"))
    drawn = False
    for axes, (key, unit, label) in zip(panels, scales, strict=True):
        for title, runs in labelled_runs(records):
            values = [(run.result.get(key), run) for run in runs]
            points = [(value / unit, float(np.mean(run.final))) for value, run in values if value]
            if not points:
                continue
            drawn = True
            scatter_with_mean(axes, points, records[0].score, title, styles[runs[0].method])
        set_log_axis(axes, "x")
        set_score_axis(axes, records)
        axes.set_xlabel(label)
        axes.set_ylabel(for_figure(records[0].score))
    return add_legend(figure, list(panels)) if drawn else None


def predictions(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw what each method predicts on one unseen task after 0, 1 and T steps, for its first seed."""
    shown = [(t, runs[0]) for t, runs in labelled_runs(records) if runs[0].result.get("curves")][:MAX_PANELS]
    if not shown:
        return None
    figure, grid = panel_grid(len(shown), height=1.9)
    for axes, (title, run) in zip(grid, shown, strict=False):
        _draw_predictions(axes, title, run)
    handles, labels = grid[0].get_legend_handles_labels()
    labels = [
        "after T steps" if label.startswith("after") and label != "after 1 step" else label
        for label in labels
    ]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, **LEGEND_STYLE)
    return figure


def _draw_predictions(axes: Axes, title: str, run: Record) -> None:
    curves = run.result["curves"]
    (x, truth), support = curves["query"], curves["support"]
    axes.plot(x, truth, color=TEXT_COLOUR, linewidth=2.5, alpha=0.5, label="true function")
    steps = sorted(int(step) for step in curves["predictions"])
    names = {0: "before adaptation", 1: "after 1 step"}
    for step, line in zip(steps, (":", "--", "-"), strict=False):
        label = names.get(step, f"after {step} steps")
        values = np.asarray(curves["predictions"][str(step)], dtype=float)
        axes.plot(x, values, line, color=COLOURS[0] if line == "-" else COLOURS[1], label=label)
    axes.plot(*support, "o", color=COLOURS[2], markersize=6, label="support points")
    axes.set_title(short_title(f"{title}, T = {steps[-1]}"), fontsize=8)
    # a network that extrapolates wildly must not flatten every other panel
    axes.set_ylim(-6, 6)


FIGURES: dict[str, SettingFigure] = {
    "error-by-step": SettingFigure(
        "Score by inner step",
        "Score on the query set before adaptation (t = 0) and after each inner step: mean over test tasks and"
        " seeds. The axis is linear up to t = 10 and logarithmic beyond.",
        error_by_step,
    ),
    "validation": SettingFigure(
        "Learning curves",
        "Score on the validation tasks while meta-training: mean over seeds; the shade spans all of them.",
        validation_curves,
    ),
    "cost": SettingFigure(
        "Score against wall time and memory",
        "Mean score of every run (dots) and of each method, with its 95 % interval over seeds, against what"
        " the run took. Seeds that trained together have the time and the memory of all.",
        cost_scatter,
    ),
    "predictions": SettingFigure(
        "Predictions on one task",
        "What each method predicts on one test task (the most varied of the first 20) after 0, 1 and T"
        f" steps, first seed. Values beyond ±6 are cut off; {MAX_PANELS} methods at most.",
        predictions,
    ),
}
"""The figures, by the end of their file names."""
