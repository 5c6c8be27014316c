"""The figures of one setting, drawn from records alone. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metalearn_benchmarks.plotting.style import (
    COLOURS,
    LEGEND,
    MOST_PANELS,
    STYLE,
    TEXT,
    WIDTH,
    Drawer,
    MethodStyles,
    few_ticks,
    logarithmic,
    one_panel,
    panels_of,
    scatter,
    score_axis,
    short_title,
    step_axis,
    with_legend,
)
from metalearn_benchmarks.records.record import Record


def by_method(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Title and runs of each method, its name added where titles agree; records come method by method."""
    groups = [list(group) for _, group in groupby(records, lambda r: r.method)]
    count = Counter(runs[0].title for runs in groups)
    return [
        (title if count[title] == 1 else f"{title}, {runs[0].method}", runs)
        for runs in groups
        for title in (runs[0].title,)
    ]


def error_by_step(records: Sequence[Record], looks: MethodStyles) -> Figure | None:
    """Mean query score before adaptation and after each inner step, over test tasks and seeds."""
    figure, axes = one_panel()
    for title, runs in by_method(records):
        curve = np.mean([run.by_step for run in runs], axis=0)
        # methods that take a hundred steps share the axis with those that take five
        steps = np.arange(len(curve))
        axes.plot(
            steps, curve, label=title, markevery=few_ticks(len(steps)), markersize=5, **looks[runs[0].method]
        )
    step_axis(axes)
    score_axis(axes, records)
    axes.set_ylabel(f"{records[0].score}, query set")
    return with_legend(figure, [axes])


def validation_curves(records: Sequence[Record], looks: MethodStyles) -> Figure | None:
    """Validation score against meta-training tasks, where there was such: mean and range of seeds."""
    (figure, axes), drawn = one_panel(), False
    for title, runs in by_method(records):
        curves = [run.result["validations"] for run in runs if len(run.result.get("validations", ())) > 1]
        if runs[0].cell["method"]["start"] != "meta" or not curves:
            continue
        drawn = True
        x, y = _together(curves)
        style = looks[runs[0].method]
        average, low, high = y.mean(0), y.min(0), y.max(0)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(x, average, label=title, markersize=3, linewidth=1.2, markevery=few_ticks(len(x)), **style)
    if not drawn:
        return None
    score_axis(axes, records)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("meta-training tasks")
    axes.set_ylabel(f"{records[0].score}, validation")
    return with_legend(figure, [axes])


def _together(
    curves: Sequence[Sequence[Sequence[float]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions `[k]` that all seeds reached, and their scores `[seeds, k]`; a null of a record is a NaN."""
    arrays = [np.asarray(curve, dtype=float) for curve in curves]
    shortest = min(map(len, arrays))
    return arrays[0][:shortest, 0], np.stack([array[:shortest, 1] for array in arrays])


def cost(records: Sequence[Record], looks: MethodStyles) -> Figure | None:
    """Final score of every run against its wall time, and against its peak memory."""
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    panels = figure.subplots(2, 1, sharey=True)
    scales = (("seconds", 1.0, "wall time of a run, s"), ("peak_memory_bytes", 2**20, "peak memory, MiB"))
    drawn = False
    for axes, (key, unit, label) in zip(panels, scales, strict=True):
        for title, runs in by_method(records):
            values = [(run.result.get(key), run) for run in runs]
            points = [(value / unit, float(np.mean(run.final))) for value, run in values if value]
            if not points:
                continue
            drawn = True
            scatter(axes, points, records[0].score, title, looks[runs[0].method])
        logarithmic(axes, "x")
        score_axis(axes, records)
        axes.set_xlabel(label)
        axes.set_ylabel(records[0].score)
    return with_legend(figure, list(panels)) if drawn else None


def predictions(records: Sequence[Record], looks: MethodStyles) -> Figure | None:
    """What each method predicts on one unseen task after 0, 1 and T steps (the first seed of each)."""
    shown = [(t, runs[0]) for t, runs in by_method(records) if runs[0].result.get("curves")][:MOST_PANELS]
    if not shown:
        return None
    figure, grid = panels_of(len(shown), height=1.9)
    for axes, (title, run) in zip(grid, shown, strict=False):
        _predictions_of(axes, title, run)
    handles, labels = grid[0].get_legend_handles_labels()
    labels = [
        "after T steps" if label.startswith("after") and label != "after 1 step" else label
        for label in labels
    ]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, **LEGEND)
    return figure


def _predictions_of(axes: Axes, title: str, run: Record) -> None:
    curves = run.result["curves"]
    (x, truth), support = curves["query"], curves["support"]
    axes.plot(x, truth, color=TEXT, linewidth=2.5, alpha=0.5, label="true function")
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


FIGURES: dict[str, tuple[str, str, Drawer]] = {
    "error-by-step": (
        "Score by inner step",
        "Score on the query set before adaptation (t = 0) and after each inner step: mean over test tasks and"
        " seeds. The axis is linear up to t = 10 and logarithmic beyond.",
        error_by_step,
    ),
    "validation": (
        "Learning curves",
        "Score on the validation tasks while meta-training: mean over seeds; the shade spans all of them.",
        validation_curves,
    ),
    "cost": (
        "Score against wall time and memory",
        "Mean score of every run (dots) and of each method, with its 95 % interval over seeds, against what"
        " the run took. Seeds that trained together have the time and the memory of all.",
        cost,
    ),
    "predictions": (
        "Predictions on one task",
        "What each method predicts on one test task (the most varied of the first 20) after 0, 1 and T"
        f" steps, first seed. Values beyond ±6 are cut off; {MOST_PANELS} methods at most.",
        predictions,
    ),
}
"""Name to title, caption and drawer."""


def draw(drawer: Drawer, records: Sequence[Record], looks: MethodStyles) -> Figure | None:
    """A figure of some records, or None where they have nothing to show in it."""
    with matplotlib.rc_context(STYLE):
        return drawer(records, looks)
