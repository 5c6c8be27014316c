"""What a figure of one setting is: its title, its caption, and the function that draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from metalearn_benchmarks.host.escape import for_figure
from metalearn_benchmarks.plotting.style import RC_PARAMS, MethodStyles
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.grouping import runs_by_method

DrawFunction = Callable[[Sequence[Record], MethodStyles], Figure | None]
"""A function that draws the records of one setting, or returns None where they have nothing to show."""


class SettingFigure(NamedTuple):
    """A figure that the report draws for each setting.

    Args:
        title: the heading over the figure.
        caption: the text below it.
        draw: the function that draws it.
    """

    title: str
    caption: str
    draw: DrawFunction


def labelled_runs(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Return the runs of each method as `runs_by_method` does, with titles that a figure can draw."""
    return [(for_figure(title), runs) for title, runs in runs_by_method(records)]


def draw_figure(draw: DrawFunction, records: Sequence[Record], styles: MethodStyles) -> Figure | None:
    """Draw records in the common style; None where they have nothing to show."""
    with matplotlib.rc_context(RC_PARAMS):
        return draw(records, styles)
