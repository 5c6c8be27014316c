"""The figure of the cost of a step against tasks, T, n and seeds. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from metalearn_benchmarks.plotting.style import COLOURS, MARKERS, RC_PARAMS, TEXT_COLOUR
from metalearn_benchmarks.speed.settings import PANELS, Panel
from metalearn_benchmarks.speed.timing import Timing
from metalearn_core.errors import UsageError


def draw(timings: Sequence[Timing], panels: Sequence[Panel] = PANELS) -> Figure:
    """Draw timings: one line for each rule and peer in each panel, both axes logarithmic.

    Raises:
        UsageError: No timing has numbers.
    """
    shown = [t for t in timings if t.median is not None]
    names = list(dict.fromkeys(_name(t) for t in shown))
    if not names:
        raise UsageError(f"nothing to draw: {', '.join({f'{t.peer} {t.note}': 0 for t in timings})}")
    with matplotlib.rc_context(RC_PARAMS):
        figure = Figure(figsize=(1 + 3 * len(panels), 3.4), layout="constrained")
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            _panel(axes, panel, shown, names)
        row[0].set_ylabel("one step, ms")
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, labelcolor=TEXT_COLOUR)
    return figure


def _panel(axes: Axes, panel: Panel, shown: Sequence[Timing], names: Sequence[tuple[str, str]]) -> None:
    one_peer, tops = len({peer for _, peer in names}) == 1, []
    for index, name in enumerate(names):
        points = sorted(
            (t.as_data()[panel.x], t.median or 0.0)
            for t in shown
            if _name(t) == name and t.what == panel.what and panel.has(t.setting)
        )
        if not points:
            continue
        look: Any = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        axes.plot(
            *zip(*points, strict=True), label=name[0] if one_peer else ", ".join(name), markersize=5, **look
        )
        tops.append((points[-1][1], points))
    if not tops:
        return
    _, points = max(tops)
    ticks, (end, cost) = [x for x, _ in points], points[-1]
    # above the topmost line, so that the slopes can be compared
    axes.plot(
        ticks, [2 * cost * x / end for x in ticks], "--", color=TEXT_COLOUR, linewidth=1, label="linear"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(panel.label)
    axes.set_title(panel.what, fontsize="small", color=TEXT_COLOUR)


def _name(timing: Timing) -> tuple[str, str]:
    return timing.setting.rule, timing.peer
