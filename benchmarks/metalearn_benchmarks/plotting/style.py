"""How figures look, and those of one setting, drawn from records alone by matplotlib. Imports no torch."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

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

MethodStyles = Mapping[str, dict[str, Any]]
"""Colour and marker of each method, the same in all figures of a report."""
Drawer = Callable[[Sequence[Record], MethodStyles], Figure | None]


def styles_by_method(records: Sequence[Record]) -> MethodStyles:
    """A colour and a marker for each method, by name."""
    names = sorted({record.method for record in records})
    return {name: style_of(index) for index, name in enumerate(names)}


def style_of(index: int) -> dict[str, Any]:
    """The colour and the marker of one of 56."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


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


def short_title(text: str, most: int = 36) -> str:
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


def few_ticks(count: int) -> int:
    """The distance between labelled ticks, so that about ten are labelled."""
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
