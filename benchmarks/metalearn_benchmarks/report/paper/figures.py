"""Figures 3.2, 3.3 and 3.4 of the paper, redrawn from all records that fit them.

Only runs of the same size on the same tasks share a figure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from metalearn_benchmarks.claims.published import parse_setting
from metalearn_benchmarks.plotting.style import RC_PARAMS
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.paper.drawing import draw_depths, draw_sine, draw_times, flatten
from metalearn_benchmarks.report.paper.runs import (
    best_validation,
    caption_of,
    comparable_runs,
    compared_method,
    depth_of,
    distinct_runs,
    is_sine_run,
)

RUNS_OFF = "An interval that reaches 0 runs off the axis."


@attrs.frozen
class PaperFigure:
    """A figure of the paper, drawn from our records.

    Args:
        stem: the file name without its ending.
        title: the heading.
        caption: the text below it.
        figure: the figure.
    """

    stem: str
    title: str
    caption: str
    figure: Figure


@attrs.frozen
class MissingFigure:
    """A figure of the paper that cannot be drawn.

    Args:
        title: the figure.
        reason: why, in words.
    """

    title: str
    reason: str


def paper_figures(records: Sequence[Record]) -> tuple[list[PaperFigure], list[MissingFigure]]:
    """Draw every figure that the records allow, one for each size of run; say why others are missing."""
    found: list[PaperFigure] = []
    missing: list[MissingFigure] = []
    for title, needs, drawer in (
        ("Figure 3.2", "second-order or first-order TURTLE (gradient alone, layers of 20, α = 1) with two"
         " numbers of hidden layers, on 5-shot sine waves", depth_figure),
        ("Figure 3.3", "two of MAML, the LSTM and TURTLE on 5-shot sine waves", sine_figure),
        ("Figure 3.4", "two methods on N-way classification, with their running times", time_figure),
    ):  # fmt: skip
        with matplotlib.rc_context(RC_PARAMS):
            drawn = list(_numbered(drawer(records)))
        found += drawn
        if not drawn:
            missing.append(MissingFigure(title, f"not drawn: it needs {needs}; no such records are here."))
    return found, missing


def _numbered(drawn: Iterable[PaperFigure]) -> Iterable[PaperFigure]:
    for index, one in enumerate(drawn):
        yield one if index == 0 else attrs.evolve(one, stem=f"{one.stem}-{index + 1}")


def depth_figure(records: Sequence[Record]) -> Iterable[PaperFigure]:
    """Draw Figure 3.2: the best validation error of TURTLE by hidden layers, order and T, and of MAML."""
    for size, group in comparable_runs(r for r in records if is_sine_run(r) and depth_of(r) is not None):
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
        yield PaperFigure("figure-3.2", "Figure 3.2 from our records", caption, draw_depths(values, depths))


def _crossed(runs: Iterable[tuple[int, int]]) -> dict[int, set[int]]:
    """The numbers of hidden layers at each T that has at least two, since a panel compares them."""
    depths: dict[int, set[int]] = defaultdict(set)
    for steps, depth in runs:
        depths[steps].add(depth)
    return {steps: layers for steps, layers in depths.items() if len(layers) > 1}


def sine_figure(records: Sequence[Record]) -> Iterable[PaperFigure]:
    """Draw Figure 3.3: the median test error of MAML, the LSTM and TURTLE on 5-shot sine waves, by T."""
    for size, group in comparable_runs(
        r for r in records if is_sine_run(r) and compared_method(r) is not None
    ):
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
            f" {caption_of(size, flatten(values), others)}"
        )
        yield PaperFigure("figure-3.3", "Figure 3.3 from our records", caption, draw_sine(values))


def time_figure(records: Sequence[Record]) -> Iterable[PaperFigure]:
    """Draw Figure 3.4 for each domain: accuracy against running time, a panel for each number of shots."""
    domains: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        where = parse_setting(record.setting)
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
            yield PaperFigure("figure-3.4", title, caption, draw_times(group))
