"""How figures look, and those of one setting, drawn from records alone by matplotlib. Imports no torch."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.summaries import mean

matplotlib.use("agg")
# seven markers beside eight colours: no two of 56 methods look alike, also without colour
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c46a9b", "#b8860b", "#2f93d1", "#6a51a3", "#555555")
DARK_COLOURS = ("#4ba3dd", "#f0803c", "#2fbf94", "#e08fbb", "#d3a23a", "#7cc8f2", "#a996dd", "#a8a8a8")
"""Of a dark page, in the same order. Every colour stands out from its page by 3 : 1 and more."""
MARKERS = "osD^vPX"
TEXT = "#6b6b6b"
STYLE: Any = {
    "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": TEXT, "axes.labelcolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT,
    "text.color": TEXT, "legend.frameon": False, "savefig.transparent": True, "figure.dpi": 100,
}  # fmt: skip
WIDTH = 4.8
"""Inches: narrow enough that letters can be read where a phone shows all of it."""
LEGEND: Any = {"labelcolor": TEXT, "fontsize": 9, "columnspacing": 1.0}
MOST_PANELS = 12
"""Of a figure with a panel for each method."""

CLOSE = 3.0
"""Values within this factor stand on a linear axis."""

TICKS = ((10.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (100.0, (1.0, 2.0, 5.0)), (np.inf, (1.0,)))
"""On a logarithmic axis that spans less than a factor: the digits that have a number."""
BELOW = 0.8
"""Where a logarithmic axis begins that an interval runs off, in its lowest value."""

Looks = Mapping[str, dict[str, Any]]
"""Colour and marker of each method, the same in all figures of a report."""
Drawer = Callable[[Sequence[Record], Looks], Figure | None]


def looks(records: Sequence[Record]) -> Looks:
    """A colour and a marker for each method, by name."""
    names = sorted({record.method for record in records})
    return {name: look(index) for index, name in enumerate(names)}


def look(index: int) -> dict[str, Any]:
    """The colour and the marker of one of 56."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def by_method(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Title and runs of each method, its name added where titles agree; records come method by method."""
    groups = [list(group) for _, group in groupby(records, lambda r: r.method)]
    count = Counter(runs[0].title for runs in groups)
    return [
        (title if count[title] == 1 else f"{title}, {runs[0].method}", runs)
        for runs in groups
        for title in (runs[0].title,)
    ]


def error_by_step(records: Sequence[Record], looks: Looks) -> Figure | None:
    """Mean query score before adaptation and after each inner step, over test tasks and seeds."""
    figure, axes = one_panel()
    for title, runs in by_method(records):
        curve = np.mean([run.by_step for run in runs], axis=0)
        # methods that take a hundred steps share the axis with those that take five
        steps = np.arange(len(curve))
        axes.plot(
            steps, curve, label=title, markevery=_few(len(steps)), markersize=5, **looks[runs[0].method]
        )
    step_axis(axes)
    score_axis(axes, records)
    axes.set_ylabel(f"{records[0].score}, query set")
    return with_legend(figure, [axes])


def validation_curves(records: Sequence[Record], looks: Looks) -> Figure | None:
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
        axes.plot(x, average, label=title, markersize=3, linewidth=1.2, markevery=_few(len(x)), **style)
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


def cost(records: Sequence[Record], looks: Looks) -> Figure | None:
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


def scatter(
    axes: Axes, points: Sequence[tuple[float, float]], score: str, title: str | None, style: dict[str, Any]
) -> None:
    """Every run as a faint dot, their mean of this score as a marker with its 95 % interval."""
    x, y = np.asarray(points, dtype=float).T
    if len(points) > 1:
        axes.plot(x, y, ".", color=style["color"], alpha=0.5, markersize=6)
    middle = mean(y).within(score)
    bars = None if middle.low != middle.low else [[middle.value - middle.low], [middle.high - middle.value]]
    axes.errorbar([x.mean()], [middle.value], yerr=bars, label=title, linestyle="none", markersize=7, **style)


def step_axis(axes: Axes) -> None:
    """Inner steps along x: linear up to 10, logarithmic beyond."""
    last = axes.xaxis.get_data_interval()[1]
    axes.set_xscale("symlog", linthresh=10)
    ticks = [t for t in (0, 1, 2, 3, 4, 5, 8, 10, 20, 50, 100) if t <= last]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(-0.2, last + 0.2 if last <= 10 else 1.1 * last)
    axes.set_xlabel("inner step t")


def score_axis(axes: Axes, records: Sequence[Record]) -> None:
    """Scores along y: errors on a logarithmic axis where they are far apart, accuracies on a linear one."""
    if not records[0].higher_is_better:
        logarithmic(axes, "y")


def logarithmic(axes: Axes, name: Literal["x", "y"], lowest: float | None = None) -> None:
    """A logarithmic axis with few numbers in plain digits; left linear where values are close together.

    Where an interval of positive values, of which `lowest` is one, reaches 0 or less, it runs off the axis.
    """
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    cut = lowest if low <= 0 else None
    low = low if cut is None else cut
    if not 0 < low < high < np.inf or high < CLOSE * low:
        return
    (axes.set_xscale if name == "x" else axes.set_yscale)("log")
    if cut is not None:
        (axes.set_xlim if name == "x" else axes.set_ylim)(low * BELOW)
    parts = next(parts for most, parts in TICKS if high < most * low)
    axis.set_major_locator(LogLocator(subs=parts, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def predictions(records: Sequence[Record], looks: Looks) -> Figure | None:
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
    axes.set_title(short(f"{title}, T = {steps[-1]}"), fontsize=8)
    # a network that extrapolates wildly must not flatten every other panel
    axes.set_ylim(-6, 6)


def short(text: str, most: int = 36) -> str:
    """A title that fits over a panel."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def panels_of(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels in two columns, all on the same axes."""
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, height * rows + 0.6), layout="constrained")
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid


def _few(count: int) -> int:
    return max(1, count // 10)


def one_panel() -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    return figure, figure.add_subplot()


def with_legend(figure: Figure, panels: Sequence[Axes]) -> Figure:
    """One legend below for all panels, with room of its own however many methods there are."""
    found: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in found}
    columns = 2 if max(map(len, found), default=0) < 30 else 1
    figure.set_figheight(figure.get_figheight() + 0.23 * -(-len(found) // columns))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns, **LEGEND)
    return figure


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


def draw(drawer: Drawer, records: Sequence[Record], looks: Looks) -> Figure | None:
    """A figure of some records, or None where they have nothing to show in it."""
    with matplotlib.rc_context(STYLE):
        return drawer(records, looks)


def rendered(figure: Figure, ending: str, salt: str) -> bytes:
    """A figure as a file's bytes: "png", "pdf" or "svg"; the same ones every time.

    `salt` keeps the ids of one SVG from meaning another's in the same page.
    """
    # a figure's own colours are for light and dark pages alike; a picture that is no SVG stands on white
    options: dict[str, dict[str, Any]] = {
        "png": {"dpi": 150, "transparent": False, "pil_kwargs": {"compress_level": 3}},
        "pdf": {"metadata": {"CreationDate": None}, "transparent": False},
        "svg": {"metadata": {"Date": None}},
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        layout = figure.get_layout_engine()
        if isinstance(layout, ConstrainedLayoutEngine):
            # once for all formats: it takes as long as drawing
            layout.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(buffer, format=ending, **options[ending])
    return buffer.getvalue()


def for_page(svg: bytes, title: str) -> str:
    """An SVG to stand inside a page: its title for those who hear it, in the page's ink and colours.

    The page defines the colours as `--c0` to `--c7`.
    """
    text = svg.decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for index, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--c{index})")
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace(TEXT, "currentColor").replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
