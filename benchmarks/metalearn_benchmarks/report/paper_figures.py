"""Figures 3.2, 3.3 and 3.4 of the paper, redrawn from whatever records fit them. Imports no torch.

Records are matched by what their runs were asked for, never by an experiment's name, and only runs of the
same size on the same tasks stand in one figure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metalearn_benchmarks.claims.published import place
from metalearn_benchmarks.plotting.style import (
    STYLE,
    TEXT,
    WIDTH,
    logarithmic,
    scatter,
    style_of,
    with_legend,
)
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.paper_runs import (
    ORDERS,
    best_validation,
    caption_of,
    comparable_runs,
    compared_method,
    depth_of,
    distinct_runs,
    is_sine,
)
from metalearn_benchmarks.statistics.comparisons import typical
from metalearn_benchmarks.statistics.estimate import Estimate

COMPARED = ("MAML", "Meta-learner LSTM", "Enhanced meta-learner LSTM", "TURTLE")
RUNS_OFF = "An interval that reaches 0 runs off the axis."


@attrs.frozen
class Redrawn:
    """One of the paper's figures from our records."""

    stem: str
    title: str
    caption: str
    figure: Figure


@attrs.frozen
class Missing:
    """Why a figure of the paper is not there."""

    title: str
    reason: str


def paper_figures(records: Sequence[Record]) -> tuple[list[Redrawn], list[Missing]]:
    """Every figure that the records allow, one for each size of run, and why the others are missing."""
    found: list[Redrawn] = []
    missing: list[Missing] = []
    for title, needs, drawer in (
        ("Figure 3.2", "second-order or first-order TURTLE (gradient alone, layers of 20, α = 1) with two"
         " numbers of hidden layers, on 5-shot sine waves", depth_figure),
        ("Figure 3.3", "two of MAML, the LSTM and TURTLE on 5-shot sine waves", sine_figure),
        ("Figure 3.4", "two methods on N-way classification, with their running times", time_figure),
    ):  # fmt: skip
        with matplotlib.rc_context(STYLE):
            drawn = list(_numbered(drawer(records)))
        found += drawn
        if not drawn:
            missing.append(Missing(title, f"not drawn: it needs {needs}; no such records are here."))
    return found, missing


def _numbered(drawn: Iterable[Redrawn]) -> Iterable[Redrawn]:
    for index, one in enumerate(drawn):
        yield one if index == 0 else attrs.evolve(one, stem=f"{one.stem}-{index + 1}")


def depth_figure(records: Sequence[Record]) -> Iterable[Redrawn]:
    """Figure 3.2: best validation error of TURTLE by hidden layers, order and T; MAML beside it."""
    for size, group in comparable_runs(r for r in records if is_sine(r) and depth_of(r) is not None):
        runs, others = distinct_runs(group, depth_of)
        crossed = _crossed((steps, depth) for depth, _, steps, _ in runs if depth >= 0)
        if not crossed:
            continue
        depths = sorted(set().union(*crossed.values()))
        values: dict[tuple[int, str, int], list[float]] = defaultdict(list)
        for (depth, order, steps, _), record in runs.items():
            if steps in crossed:
                values[depth, order, steps].append(best_validation(record))
        caption = (
            "Best validation error of TURTLE by the number of its hidden layers, the order of the"
            " meta-gradient and T; MAML beside it. A dot is a run's best validation, a mark the mean of the"
            f" middle half of the seeds, with its 95 % interval. {RUNS_OFF}"
            f" {caption_of(size, values.values(), others)}"
        )
        yield Redrawn("figure-3.2", "Figure 3.2 from our records", caption, _draw_depths(values, depths))


def _crossed(runs: Iterable[tuple[int, int]]) -> dict[int, set[int]]:
    """The hidden layers by T, of every T that has two numbers of them: a panel shows what depth does."""
    depths: dict[int, set[int]] = defaultdict(set)
    for steps, depth in runs:
        depths[steps].add(depth)
    return {steps: of_it for steps, of_it in depths.items() if len(of_it) > 1}


def _draw_depths(values: Mapping[tuple[int, str, int], Sequence[float]], depths: Sequence[int]) -> Figure:
    """A panel for each T; MAML, depth −1, at the left."""
    every = sorted({steps for _, _, steps in values})
    figure = Figure(figsize=(WIDTH, 0.6 + 2.1 * len(every)), layout="constrained")
    panels = list(figure.subplots(len(every), 1, sharex=True, squeeze=False)[:, 0])
    maml = any(depth < 0 for depth, *_ in values)
    places = {depth: x for x, depth in enumerate(([-1] if maml else []) + list(depths))}
    for axes, steps in zip(panels, every, strict=True):
        for index, order in enumerate(ORDERS):
            points = [(places[d], v) for (d, o, s), v in values.items() if (o, s) == (order, steps)]
            _bars(axes, sorted(points), (index - 0.5) * 0.24, f"{order} order", style_of(index))
        axes.set_title(f"T = {steps}", fontsize="medium")
        axes.set_ylabel("validation error")
        logarithmic(axes, "y", _lowest(v for (_, _, s), v in values.items() if s == steps))
        if maml:
            axes.axvline(0.5, color=TEXT, linewidth=0.5)
    panels[-1].set_xticks(list(places.values()), ["MAML" if d < 0 else str(d) for d in places])
    panels[-1].set_xlabel("hidden layers of TURTLE")
    return with_legend(figure, panels)


def sine_figure(records: Sequence[Record]) -> Iterable[Redrawn]:
    """Figure 3.3: median test error of MAML, the LSTM and TURTLE on 5-shot sine waves, by T."""
    for size, group in comparable_runs(r for r in records if is_sine(r) and compared_method(r) is not None):
        runs, others = distinct_runs(group, compared_method)
        values: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for (name, order, steps, _), record in runs.items():
            values[name, order][steps].append(float(np.median(record.final)))
        if len({name.split()[-1] for name, _ in values}) < 2:
            continue
        caption = (
            "Median test error on 5-shot sine waves by T. A dot is a run's median over test tasks, a mark"
            " the mean of the middle half of the seeds, with its 95 % interval. As in the paper, MAML and"
            " TURTLE are second order and the LSTM is first order; hollow marks are the other order."
            f" {RUNS_OFF}"
            f" {caption_of(size, _leaves(values), others)}"
        )
        yield Redrawn("figure-3.3", "Figure 3.3 from our records", caption, _draw_sine(values))


def _draw_sine(values: Mapping[tuple[str, str], Mapping[int, Sequence[float]]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.add_subplot()
    every = sorted({steps for by_steps in values.values() for steps in by_steps})
    names = sorted(values, key=lambda key: (COMPARED.index(key[0]), ORDERS.index(key[1])))
    for index, (name, order) in enumerate(names):
        style = style_of(COMPARED.index(name))
        if order != ("first" if name == "Meta-learner LSTM" else "second"):
            style |= {"markerfacecolor": "none"}
        points = [(every.index(steps), medians) for steps, medians in sorted(values[name, order].items())]
        offset = (index - (len(names) - 1) / 2) * 0.8 / len(names)
        _bars(axes, points, offset, f"{name}, {order} order", style)
    axes.set_xticks(range(len(every)), [str(steps) for steps in every])
    axes.set_xlim(-0.6, len(every) - 0.4)
    axes.set_xlabel("inner steps T")
    axes.set_ylabel("median test error")
    logarithmic(axes, "y", _lowest(_leaves(values)))
    return with_legend(figure, [axes])


def time_figure(records: Sequence[Record]) -> Iterable[Redrawn]:
    """Figure 3.4: accuracy against running time, a panel for each number of shots, on one domain."""
    domains: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        where = place(record.setting)
        if where is not None and where.train == where.test and record.higher_is_better:
            domains[where.train, where.ways].append(record)
    order = sorted(domains, key=lambda key: (key[0] != "miniImageNet", key))
    for name, ways in order:
        for size, group in comparable_runs(domains[name, ways], but=("meta_batch",)):
            if len({record.method for record in group}) < 2:
                continue
            caption = (
                f"Accuracy on {ways}-way {name} against the running time of training, validation and test:"
                " every run a dot, the mean over seeds with its 95 % interval. Seeds that trained together"
                f" have the time of all. {caption_of(size)}"
            )
            title = f"Figure 3.4 from our records: {name}"
            yield Redrawn("figure-3.4", title, caption, _draw_times(group))


def _draw_times(records: Sequence[Record]) -> Figure:
    shots = sorted({_shots(record) for record in records})
    figure = Figure(figsize=(WIDTH, 2.7 * len(shots)), layout="constrained")
    panels = list(figure.subplots(len(shots), 1, sharex=True, squeeze=False)[:, 0])
    styles = {name: style_of(i) for i, name in enumerate(sorted({r.method for r in records}))}
    longest = max(record.result["seconds"] for record in records)
    unit, word = next((u, w) for u, w in ((3600, "h"), (60, "min"), (1, "s")) if longest >= u or u == 1)
    for axes, count in zip(panels, shots, strict=True):
        for name, style in styles.items():
            of_it = [r for r in records if r.method == name and _shots(r) == count]
            points = [(r.result["seconds"] / unit, float(np.median(r.final))) for r in of_it]
            if points:
                scatter(axes, points, of_it[0].score, of_it[0].title, style)
        axes.set_title(f"{count}-shot", fontsize="medium")
        axes.set_ylabel(f"median {records[0].score}")
    logarithmic(panels[-1], "x")
    panels[-1].set_xlabel(f"running time, {word}")
    return with_legend(figure, panels)


def _shots(record: Record) -> int:
    where = place(record.setting)
    return where.shots if where else 0


def _bars(
    axes: Axes,
    points: Sequence[tuple[float, Sequence[float]]],
    offset: float,
    label: str,
    style: dict[str, Any],
) -> None:
    """What is typical of seeds, with its interval, and every seed as a dot."""
    if not points:
        return
    x = [place + offset for place, _ in points]
    estimates = [_typical(values) for _, values in points]
    spans = [(e.value - e.low, e.high - e.value) for e in estimates]
    bars = np.nan_to_num(np.asarray(spans)).T  # one seed has no interval
    for at, (_, values) in zip(x, points, strict=True):
        axes.plot([at] * len(values), values, ".", color=style["color"], alpha=0.4, markersize=4)
    axes.errorbar(
        x, [e.value for e in estimates], yerr=bars, label=label, linestyle="none", markersize=6, capsize=3,
        elinewidth=1.2, **style,
    )  # fmt: skip


def _lowest(groups: Iterable[Sequence[float]]) -> float:
    return min((value for group in groups for value in group if not math.isnan(value)), default=math.nan)


def _typical(values: Sequence[float]) -> Estimate:
    """The mean of the middle half of the seeds: that of all follows the one run that never learned."""
    of_seeds = np.asarray(values)
    return typical(lambda tasks: of_seeds, len(of_seeds), 1).interval()


def _leaves(values: Mapping[Any, Mapping[Any, Sequence[float]]]) -> list[Sequence[float]]:
    return [leaf for inner in values.values() for leaf in inner.values()]
