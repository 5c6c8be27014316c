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
from metalearn_benchmarks.report.figures.drawing import SettingFigure, labelled_runs
from metalearn_benchmarks.statistics.comparisons import middle_mean
from metalearn_benchmarks.statistics.headline import number_of_run

MIN_TASKS = 10
"""With fewer test tasks than these, their scores make no curve."""
MAX_POINTS = 200
"""The most points of a curve over test tasks."""


def error_by_step(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw the mean query score over test tasks before adaptation and after each inner step."""
    figure, axes = single_panel()
    for title, runs in labelled_runs(records):
        curve = _over_seeds(np.array([run.by_step for run in runs]), runs[0])
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


def _over_seeds(values: NDArray[np.float64], run: Record) -> NDArray[np.float64]:
    """The mean over seeds of `[seeds, k]`; of errors that over the middle half, as in the tables."""
    return values.mean(0) if run.higher_is_better else np.asarray(middle_mean(values.T))


def validation_curves(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw the validation score against the number of meta-training tasks, with the middle half of seeds."""
    (figure, axes), drawn = single_panel(), False
    for title, runs in labelled_runs(records):
        curves = [run.result["validations"] for run in runs if len(run.result.get("validations", ())) > 1]
        if runs[0].cell["method"]["start"] != "meta" or not curves:
            continue
        drawn = True
        x, y = _common_positions(curves)
        style = styles[runs[0].method]
        average = _over_seeds(y, runs[0])
        with np.errstate(invalid="ignore"):
            low, high = np.quantile(y, (0.25, 0.75), axis=0)
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


def single_tasks(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw the share of test tasks whose score is at most x; a task has the median over seeds."""
    if len(records[0].final) < MIN_TASKS:
        return None
    figure, axes = single_panel()
    lowest = []
    for title, runs in labelled_runs(records):
        of_task = np.median([run.final for run in runs], axis=0)
        ranked = np.sort(of_task[np.isfinite(of_task)])
        if not len(ranked):
            continue
        lowest.append(float(np.quantile(ranked, 0.01)))
        share = 100 * np.arange(1, len(ranked) + 1) / len(of_task)
        # a few hundred points are all that a picture shows
        kept = np.unique(np.linspace(0, len(ranked) - 1, MAX_POINTS).astype(int))
        spacing = marker_spacing(len(kept))
        axes.plot(
            ranked[kept], share[kept], label=title, markevery=spacing, markersize=4, **styles[runs[0].method]
        )
    if not lowest:
        return None
    if not records[0].higher_is_better and min(lowest) > 0:
        set_log_axis(axes, "x", min(lowest))
        axes.set_xlim(left=min(lowest))
    axes.set_ylim(0, 100)
    axes.set_xlabel(f"{for_figure(records[0].score)} of a test task")
    axes.set_ylabel("tasks at or below it, %")
    return add_legend(figure, [axes])


def cost_scatter(records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw the final score of every run against its wall time and against its peak memory."""
    figure = Figure(figsize=(FIGURE_WIDTH, 5.6), layout="constrained")
    panels = figure.subplots(2, 1, sharey=True)
    scales = (("seconds", 1.0, "wall time of a run, s"), ("peak_memory_bytes", 2**20, "peak memory, MiB"))
    drawn, up = False, records[0].higher_is_better
    for axes, (key, unit, label) in zip(panels, scales, strict=True):
        for title, runs in labelled_runs(records):
            values = [(run.result.get(key), run) for run in runs]
            points = [(value / unit, number_of_run(run.final, up)) for value, run in values if value]
            if not points:
                continue
            drawn = True
            style = styles[runs[0].method]
            scatter_with_mean(axes, points, records[0].score, title, style, middle_half=not up)
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
        "Score on the query set before adaptation (t = 0) and after each inner step. Of errors it is the"
        " mean over test tasks, where the table has their median, and over the middle half of seeds; of other"
        " scores the mean over all. The axis is linear up to t = 10 and logarithmic"
        " beyond.",
        error_by_step,
    ),
    "validation": SettingFigure(
        "Learning curves",
        "Score on the validation tasks while meta-training: mean over tasks, where the table has the median"
        " of errors, and over seeds (of errors over their middle half). The shade spans the middle half.",
        validation_curves,
    ),
    "tasks": SettingFigure(
        "Scores of single tasks",
        "How many test tasks are at or below a score: a curve further left has more tasks with low scores."
        " Each task counts with its median over seeds.",
        single_tasks,
    ),
    "cost": SettingFigure(
        "Score against wall time and memory",
        "Score of every run (dots: of errors the median over test tasks) and of each method, with its 95 %"
        " interval over seeds, against what the run took. Seeds that trained together have the time and the"
        " memory of all.",
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
