"""What both figures of the map share: axes in pixels, text that fits into boxes, lengths and colours."""

from __future__ import annotations

import re
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from metalearn_benchmarks.plotting.style import COLOURS
from metalearn_benchmarks.rule_map.layout.blocks import group_names
from metalearn_core.testing.theory.rule_map import RuleMap

CONTAINS, CROSSED = COLOURS[0], COLOURS[1]
"""The colours of what contains, and of what does not."""
GROUP_COLOURS = (COLOURS[2], COLOURS[4], COLOURS[6], COLOURS[5], COLOURS[3], COLOURS[7])
"""The colours of the groups of rules, in the order of the groups."""
FONT, SMALL = 8.0, 7.5
"""Font sizes in points."""
PIXEL = 72 / 100
"""Points of a pixel: all lengths are pixels at 100 per inch."""
EDGE, TOP = 20.0, 14.0
"""The margins at the sides and at the top."""


def canvas(width: float, height: float, low: float) -> tuple[Figure, Axes]:
    """Return a figure and its axes, whose unit is a pixel.

    Args:
        width: Width of the figure.
        height: Height of the figure.
        low: The vertical coordinate of its lower edge.
    """
    figure = Figure(figsize=(width / 100, height / 100))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(-EDGE, width - EDGE), ylim=(low, low + height))
    return figure, axes


def wrap_title(title: str) -> str:
    """Break a title into lines for a box: few for a short title, and as narrow as they can be."""
    words = re.sub(r"(?<=…) | (?=[<=])|(?<=[<=]) ", "\u00a0", title)
    most = 1 + (len(words) > 9) + (len(words) > 22) + (len(words) > 30)
    for width in range(max(map(len, words.split(" "))), len(words) + 1):
        lines = textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)
        if len(lines) <= most:
            return "\n".join(lines)
    return words


_METRICS, _FONT = TextToPath(), FontProperties(family="DejaVu Sans", size=FONT)


def text_width(text: str, size: float = FONT) -> float:
    """Return the width of a text in pixels; `size` is its font size in points."""
    width: float = _METRICS.get_text_width_height_descent(text, _FONT, ismath=False)[0]
    return width * size / FONT / PIXEL


def box_size(text: str) -> tuple[float, float]:
    """Return width and height of a box for a text, with room for other fonts that may be wider."""
    lines = text.split("\n")
    return max(map(text_width, lines)) * 1.06 + 12, 12.5 * len(lines) + 9


def group_colour(rule_map: RuleMap, group: str) -> str:
    """Return the colour of a group of rules."""
    return GROUP_COLOURS[group_names(rule_map).index(group) % len(GROUP_COLOURS)]
