"""Draw Figures 3.2, 3.3 and 3.4 from scores that are already grouped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metalearn_benchmarks.claims.published import parse_setting
from metalearn_benchmarks.host.escape import for_figure
from metalearn_benchmarks.plotting.axes import scatter_with_mean, set_log_axis
from metalearn_benchmarks.plotting.panels import add_legend
from metalearn_benchmarks.plotting.style import FIGURE_WIDTH, TEXT_COLOUR, style_of_shipped, styles_by_method
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.paper.runs import GRADIENT_ORDERS
from metalearn_benchmarks.statistics.comparisons import typical_over_seeds
from metalearn_benchmarks.statistics.estimate import Estimate

SINE_METHODS = {
    "MAML": "maml", "Meta-learner LSTM": "lstm", "Enhanced meta-learner LSTM": "lstm-enhanced",
    "TURTLE": "turtle",
}  # fmt: skip
"""The methods of Figure 3.3 in its order, with the names whose colour and marker they have."""

DEPTH_STYLES = {
    ("MAML", "first"): "fo-maml", ("MAML", "second"): "maml",
    ("TURTLE", "first"): "fo-turtle", ("TURTLE", "second"): "turtle",
}  # fmt: skip
"""The methods of Figure 3.2, with the names whose colour and marker they have."""


def draw_depths(values: Mapping[tuple[int, str, int], Sequence[float]], depths: Sequence[int]) -> Figure:
    """Draw Figure 3.2: a panel for each T, with MAML at the left.

    Args:
        values: the validation errors of the seeds, by hidden layers (−1 for MAML), order and T.
        depths: the numbers of hidden layers along x.
    """
    all_steps = sorted({steps for _, _, steps in values})
    figure = Figure(figsize=(FIGURE_WIDTH, 0.6 + 2.1 * len(all_steps)), layout="constrained")
    panels = list(figure.subplots(len(all_steps), 1, sharex=True, squeeze=False)[:, 0])
    maml = any(depth < 0 for depth, *_ in values)
    places = {depth: x for x, depth in enumerate(([-1] if maml else []) + list(depths))}
    for axes, steps in zip(panels, all_steps, strict=True):
        for (name, order), style in DEPTH_STYLES.items():
            points = [
                (places[depth], found)
                for (depth, *where), found in values.items()
                if where == [order, steps] and (depth < 0) == (name == "MAML")
            ]
            beside = (GRADIENT_ORDERS.index(order) - 0.5) * 0.24
            _draw_estimates(axes, sorted(points), beside, f"{name}, {order} order", style_of_shipped(style))
        axes.set_title(f"T = {steps}", fontsize="medium")
        axes.set_ylabel("validation error")
        set_log_axis(axes, "y", _lowest_score(v for (_, _, s), v in values.items() if s == steps))
        if maml:
            axes.axvline(0.5, color=TEXT_COLOUR, linewidth=0.5)
    panels[-1].set_xticks(list(places.values()), ["MAML" if d < 0 else str(d) for d in places])
    panels[-1].set_xlabel("hidden layers of TURTLE")
    return add_legend(figure, panels)


def draw_sine(values: Mapping[tuple[str, str], Mapping[int, Sequence[float]]]) -> Figure:
    """Draw Figure 3.3.

    Args:
        values: the median errors of the seeds at each T, by method and order.
    """
    figure = Figure(figsize=(FIGURE_WIDTH, 3.6), layout="constrained")
    axes = figure.add_subplot()
    all_steps = sorted({steps for by_steps in values.values() for steps in by_steps})
    names = sorted(values, key=lambda key: (list(SINE_METHODS).index(key[0]), GRADIENT_ORDERS.index(key[1])))
    for index, (name, order) in enumerate(names):
        style = style_of_shipped(SINE_METHODS[name])
        if order != ("first" if name == "Meta-learner LSTM" else "second"):
            style |= {"markerfacecolor": "none"}
        points = [(all_steps.index(steps), medians) for steps, medians in sorted(values[name, order].items())]
        offset = (index - (len(names) - 1) / 2) * 0.8 / len(names)
        _draw_estimates(axes, points, offset, f"{name}, {order} order", style)
    axes.set_xticks(range(len(all_steps)), [str(steps) for steps in all_steps])
    axes.set_xlim(-0.6, len(all_steps) - 0.4)
    axes.set_xlabel("inner steps T")
    axes.set_ylabel("median test error")
    set_log_axis(axes, "y", _lowest_score(flatten(values)))
    return add_legend(figure, [axes])


def draw_times(records: Sequence[Record]) -> Figure:
    """Draw Figure 3.4: a panel for each number of shots."""
    shots = sorted({_shots(record) for record in records})
    figure = Figure(figsize=(FIGURE_WIDTH, 2.7 * len(shots)), layout="constrained")
    panels = list(figure.subplots(len(shots), 1, sharex=True, squeeze=False)[:, 0])
    styles = styles_by_method(records)
    longest = max(record.result["seconds"] for record in records)
    unit, word = next((u, w) for u, w in ((3600, "h"), (60, "min"), (1, "s")) if longest >= u or u == 1)
    for axes, count in zip(panels, shots, strict=True):
        for name, style in sorted(styles.items()):
            runs = [r for r in records if r.method == name and _shots(r) == count]
            points = [(r.result["seconds"] / unit, float(np.median(r.final))) for r in runs]
            if points:
                scatter_with_mean(axes, points, runs[0].score, for_figure(runs[0].title), style)
        axes.set_title(f"{count}-shot", fontsize="medium")
        axes.set_ylabel(f"median {for_figure(records[0].score)}")
    set_log_axis(panels[-1], "x")
    panels[-1].set_xlabel(f"running time, {word}")
    return add_legend(figure, panels)


def _shots(record: Record) -> int:
    name = parse_setting(record.setting)
    return name.shots if name else 0


def _draw_estimates(
    axes: Axes,
    points: Sequence[tuple[float, Sequence[float]]],
    offset: float,
    label: str,
    style: dict[str, Any],
) -> None:
    """Draw the typical score of the seeds with its interval, and every seed as a dot."""
    if not points:
        return
    x = [place + offset for place, _ in points]
    estimates = [_typical_score(values) for _, values in points]
    spans = [(e.value - e.low, e.high - e.value) for e in estimates]
    bars = np.nan_to_num(np.asarray(spans)).T  # one seed has no interval
    for at, (_, values) in zip(x, points, strict=True):
        axes.plot([at] * len(values), values, ".", color=style["color"], alpha=0.4, markersize=4)
    axes.errorbar(
        x, [e.value for e in estimates], yerr=bars, label=label, linestyle="none", markersize=6, capsize=3,
        elinewidth=1.2, **style,
    )  # fmt: skip


def _lowest_score(groups: Iterable[Sequence[float]]) -> float:
    return min((value for group in groups for value in group if not math.isnan(value)), default=math.nan)


def _typical_score(values: Sequence[float]) -> Estimate:
    """The interquartile mean over seeds. One run that never learned would dominate their mean."""
    return typical_over_seeds(np.asarray(values)).interval()


def flatten(values: Mapping[Any, Mapping[Any, Sequence[float]]]) -> list[Sequence[float]]:
    """Return all innermost sequences of a nested mapping."""
    return [leaf for inner in values.values() for leaf in inner.values()]
