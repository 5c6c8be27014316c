"""The map of rules as a picture: what contains what, and what does not. Imports no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

from metalearn_benchmarks.plotting.style import COLOURS, RC_PARAMS, TEXT_COLOUR
from metalearn_benchmarks.rule_map.arrows import draw_routes, draw_sideways
from metalearn_benchmarks.rule_map.canvas import (
    CONTAINS,
    CROSSED,
    EDGE,
    FONT,
    GROUP_COLOURS,
    SMALL,
    TOP,
    box_size,
    canvas,
    group_colour,
    text_width,
    wrap_title,
)
from metalearn_benchmarks.rule_map.exclusions import draw_exclusions
from metalearn_benchmarks.rule_map.layout.arrangement import arrange
from metalearn_benchmarks.rule_map.layout.blocks import group_names
from metalearn_benchmarks.rule_map.layout.geometry import Box, Picture
from metalearn_benchmarks.rule_map.text import Law, laws, sentence
from metalearn_core.testing.theory.rule_map import RuleMap

LINE, KEY = 14.0, 26.0
"""The height of a line of the list, and of the key."""


def draw_map(rule_map: RuleMap, *, witnesses: bool = True) -> Figure:
    """Draw a map: special rules low, general rules high, arrows and crossed-out lines between them.

    Args:
        rule_map: The map.
        witnesses: Write the list of invariants and witnesses beneath, numbered as `laws` numbers them.
    """
    with matplotlib.rc_context(RC_PARAMS):
        sizes = {name: box_size(wrap_title(node.title)) for name, node in rule_map.nodes.items()}
        picture = arrange(rule_map, sizes.__getitem__)
        numbered = laws(rule_map)
        width = picture.width + 2 * EDGE
        lines = _numbered_list(rule_map, numbered, width) if witnesses else []
        beneath = TOP + KEY + LINE * len(lines) + TOP * bool(lines)
        figure, axes = canvas(width, picture.height + TOP + beneath, low=-beneath)
        _frames(axes, rule_map, picture)
        draw_exclusions(axes, picture, numbered)
        draw_routes(axes, picture.routes)
        for link in picture.mutual:
            draw_sideways(axes, link, picture)
        _key(figure, axes, group_names(rule_map), -(TOP + 6))
        for number, line in enumerate(lines):
            y = -(TOP + KEY + TOP / 2) - LINE * (number + 0.5)
            axes.text(0, y, line, fontsize=SMALL, va="center")
        return figure


def _frames(axes: Axes, rule_map: RuleMap, picture: Picture) -> None:
    for block in picture.blocks:
        if block.framed:
            _box(axes, picture.boxes[block.key], COLOURS[7], fill=0.06, line=0.35)
    for name, node in rule_map.nodes.items():
        box, colour = picture.boxes[name], group_colour(rule_map, node.group)
        _box(axes, box, colour, fill=0.16, line=0.9).set_gid(f"map-rule-{name}")
        axes.text(
            box.x,
            box.y,
            wrap_title(node.title),
            fontsize=FONT,
            ha="center",
            va="center",
            linespacing=1.12,
            zorder=6,
        )


def _box(axes: Axes, box: Box, colour: str, *, fill: float, line: float) -> FancyBboxPatch:
    corner = (box.x - box.width / 2 + 4, box.y - box.height / 2 + 4)
    shape = FancyBboxPatch(
        corner, box.width - 8, box.height - 8, boxstyle="round,pad=4,rounding_size=6", zorder=5,
        facecolor=(colour, fill), edgecolor=(colour, line), linewidth=0.9,
    )  # fmt: skip
    axes.add_patch(shape)
    return shape


def _key(figure: Figure, axes: Axes, names: Sequence[str], y: float) -> None:
    """What lines and colours mean, beneath the picture."""
    entries: list[tuple[str, Any]] = [
        ("contains exactly", Line2D([], [], color=CONTAINS)),
        ("contains in the limit", Line2D([], [], color=CONTAINS, linestyle=(0, (4, 2.2)))),
        (
            "does not contain: breaks invariant n",
            Line2D([], [], color=CROSSED, linewidth=0.8, marker="x", markersize=5),
        ),
    ]
    for index, name in enumerate(names):
        colour = GROUP_COLOURS[index % len(GROUP_COLOURS)]
        entries.append((name, Line2D([], [], color=colour, marker="s", linestyle="", alpha=0.6)))
    axes.legend(
        [handle for _, handle in entries], [label for label, _ in entries], loc="upper left",
        ncols=len(entries), bbox_to_anchor=(0, y), bbox_transform=axes.transData, fontsize=SMALL,
        borderpad=0, borderaxespad=0, handlelength=2.2, columnspacing=1.3, labelcolor=TEXT_COLOUR,
    )  # fmt: skip


def _numbered_list(rule_map: RuleMap, numbered: Sequence[Law], width: float) -> list[str]:
    """The numbered list in lines, hanging under its numbers."""
    sentences = {law: sentence(rule_map, law) for law in numbered}
    letter = text_width(" ".join(sentences.values()), SMALL) / max(1, sum(map(len, sentences.values())))
    lines = []
    for law, text in sentences.items():
        first, *more = textwrap.wrap(text, int(0.95 * (width - 2 * EDGE) / letter) - 6)
        lines += [f"{law.number:>2}  {first}", *(f"      {line}" for line in more)]
    return lines
