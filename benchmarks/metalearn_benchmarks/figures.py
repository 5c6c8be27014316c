"""The figures of an experiment, drawn from records alone. matplotlib draws. Imports no torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metalearn_benchmarks.records import Record

matplotlib.use("agg")
# seven markers beside eight colours: no two of 56 methods look alike, also without colour
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6a51a3", "#555555")
MARKERS = "osD^vPX"
TEXT = "#777777"
STYLE: Any = {
    "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": TEXT, "axes.labelcolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT,
    "text.color": TEXT, "legend.frameon": False, "savefig.transparent": True, "figure.dpi": 100,
}  # fmt: skip

Drawer = Callable[[Sequence[Record]], Figure | None]


def _by_method(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    return [(runs[0].title, runs) for _, g in groupby(records, lambda r: r.method) if (runs := list(g))]


def _look(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def error_by_step(records: Sequence[Record]) -> Figure | None:
    """Mean query score before adaptation and after each inner step, over test tasks and seeds."""
    figure, axes = _one_panel()
    for index, (title, runs) in enumerate(_by_method(records)):
        curve = np.mean([np.mean(run.scores, axis=0) for run in runs], axis=0)
        # methods that take a hundred steps share the axis with those that take five
        steps = np.arange(len(curve))
        axes.plot(steps, curve, label=title, markevery=_few(len(steps)), markersize=5, **_look(index))
    axes.set_xscale("symlog", linthresh=10)
    axes.set_yscale("linear" if records[0].higher_is_better else "log")
    axes.set_xticks([0, 1, 2, 3, 4, 5, 8, 10, 100], ["0", "1", "2", "3", "4", "5", "8", "10", "100"])
    axes.set_xlim(left=-0.2)
    axes.set_xlabel("inner step t")
    axes.set_ylabel(f"{records[0].score}, query set")
    return _with_legend(figure, axes)


def validation_curves(records: Sequence[Record]) -> Figure | None:
    """Mean validation score against meta-training tasks, where there was meta-training."""
    (figure, axes), drawn = _one_panel(), False
    for index, (title, runs) in enumerate(_by_method(records)):
        curves = [run.result["validations"] for run in runs if len(run.result["validations"]) > 1]
        if runs[0].cell["method"]["start"] != "meta" or not curves:
            continue
        drawn = True
        for number, curve in enumerate(curves):
            x, y = np.asarray(curve, dtype=float).T  # a null of a record is a NaN
            label = title if number == 0 else None
            axes.plot(x, y, label=label, alpha=0.9, markersize=3, linewidth=1.2, **_look(index))
    if not drawn:
        return None
    axes.set_yscale("linear" if records[0].higher_is_better else "log")
    axes.set_xlabel("meta-training tasks")
    axes.set_ylabel(f"{records[0].score}, validation tasks")
    return _with_legend(figure, axes)


def predictions(records: Sequence[Record]) -> Figure | None:
    """What each method predicts on one unseen task after 0, 1 and T steps (the first seed of each)."""
    shown = [(t, runs[0]) for t, runs in _by_method(records) if runs[0].result.get("curves")]
    if not shown:
        return None
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(7, 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (title, run) in zip(grid.flat, shown, strict=False):
        _predictions_of(axes, title, run)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    labels = [
        "after T steps" if label.startswith("after") and label != "after 1 step" else label
        for label in labels
    ]
    figure.legend(handles, labels, loc="outside lower center", ncols=3, labelcolor=TEXT)
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
    axes.set_title(f"{title}, T = {steps[-1]}", fontsize=10)
    # a network that extrapolates wildly must not flatten every other panel
    axes.set_ylim(-6, 6)


def _few(count: int) -> int:
    return max(1, count // 10)


def _one_panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    return figure, figure.add_subplot()


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    """The legend below, with room of its own however many methods there are."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) < 40 else 1
    figure.set_figheight(3.4 + 0.23 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, labelcolor=TEXT)
    return figure


FIGURES: dict[str, tuple[str, Drawer]] = {
    "error-by-step": (
        "Score on the query set before adaptation (t = 0) and after each inner step: mean over test tasks and"
        " seeds. The axis is linear up to t = 10 and logarithmic beyond.",
        error_by_step,
    ),
    "predictions": (
        "What each method predicts on one test task (the most varied of the first 20) after 0, 1 and T"
        " steps, seed 0. Values beyond ±6 are cut off.",
        predictions,
    ),
    "validation": (
        "Score on the validation tasks while meta-training, one line per seed.",
        validation_curves,
    ),
}
"""Name to caption and drawer."""


def draw(name: str, records: Sequence[Record]) -> Figure | None:
    """A figure of one setting's records, or None where they have nothing to show in it."""
    with matplotlib.rc_context(STYLE):
        return FIGURES[name][1](records)


def rendered(figure: Figure, ending: str, salt: str) -> bytes:
    """A figure as a file's bytes: "png", "pdf" or "svg"; the same ones every time.

    `salt` keeps the ids of one SVG from meaning another's in the same page.
    """
    # a figure's own colours are for light and dark pages alike; a picture that is no SVG stands on white
    options: dict[str, dict[str, Any]] = {
        "png": {"dpi": 150, "transparent": False},
        "pdf": {"metadata": {"CreationDate": None}, "transparent": False},
        "svg": {"metadata": {"Date": None}},
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure.savefig(buffer, format=ending, **options[ending])
    return buffer.getvalue()
