"""The map of rules as a matrix: each rule against each other one. Imports no torch."""

from __future__ import annotations

from itertools import product
from typing import Any

import attrs
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metalearn_benchmarks.plotting.style import RC_PARAMS, TEXT_COLOUR
from metalearn_benchmarks.rule_map.canvas import (
    CONTAINS,
    CROSSED,
    EDGE,
    PIXEL,
    SMALL,
    TOP,
    canvas,
    group_colour,
    text_width,
)
from metalearn_benchmarks.rule_map.layout.blocks import group_names
from metalearn_core.testing.theory.map_parts import Relation
from metalearn_core.testing.theory.rule_map import RuleMap

CELL, TAIL = 17.5, 44.0


def draw_matrix(rule_map: RuleMap) -> Figure:
    """Draw a row for each rule: whether it contains each other rule; what was claimed is darker."""
    with matplotlib.rc_context(RC_PARAMS):
        ordered = _ordered(rule_map)
        size = CELL * len(ordered)
        names = 14 + max(text_width(rule_map.nodes[name].title, SMALL) for name in ordered) * 1.06
        figure, axes = canvas(size + names + 2 * EDGE, size + names + TAIL + 2 * TOP, low=-(TAIL + TOP))
        axes.set_xlim(-names - EDGE, size + EDGE)
        place = {name: CELL * (index + 0.5) for index, name in enumerate(ordered)}
        _ruling(axes, rule_map, place, size)
        known = rule_map.relations()
        for look, derived in product(LOOKS, (False, True)):
            pairs = [pair for pair, relation in known.items() if look.shows(relation, derived)]
            points = [(place[special], size - place[general]) for special, general in pairs]
            alpha = DERIVED if derived else CLAIMED
            axes.scatter(
                *(zip(*points, strict=True) if points else ([], [])), alpha=alpha, zorder=4, **look.style
            )
        _matrix_key(axes, size)
        return figure


def _ordered(rule_map: RuleMap) -> list[str]:
    """By group, and in the map's order."""
    rank = group_names(rule_map).index
    return sorted(rule_map.nodes, key=lambda name: rank(rule_map.nodes[name].group))


def _ruling(axes: Axes, rule_map: RuleMap, place: dict[str, float], size: float) -> None:
    """Names beside and above, light lines between, stronger ones between groups."""
    light: dict[str, Any] = {"color": TEXT_COLOUR, "linewidth": 0.5, "zorder": 1}
    before = None
    for name, at in place.items():
        node = rule_map.nodes[name]
        title, colour = node.title, group_colour(rule_map, node.group)
        axes.text(-6, size - at, title, fontsize=SMALL, ha="right", va="center", gid=f"map-row-{name}")
        axes.text(at, size + 6, title, fontsize=SMALL, ha="center", va="bottom", rotation=90)
        axes.plot(
            [-3, -3],
            [size - at - CELL / 2, size - at + CELL / 2],
            color=colour,
            linewidth=2.2,
            solid_capstyle="butt",
        )
        axes.plot(
            [at - CELL / 2, at + CELL / 2],
            [size + 3, size + 3],
            color=colour,
            linewidth=2.2,
            solid_capstyle="butt",
        )
        alpha = 0.6 if node.group != before else 0.18
        edge, before = at - CELL / 2, node.group
        axes.plot([0, size], [size - edge] * 2, alpha=alpha, **light)
        axes.plot([edge] * 2, [0, size], alpha=alpha, **light)
        axes.plot(
            [at],
            [size - at],
            "s",
            color=TEXT_COLOUR,
            alpha=0.25,
            markersize=CELL * PIXEL * 0.9,
            markeredgewidth=0,
        )
    axes.plot([0, size, size], [0, 0, size], alpha=0.6, **light)


@attrs.frozen
class Look:
    """A symbol of the matrix.

    Args:
        says: What it means, for the key.
        shown: The relations that it shows, each as verdict and whether that is closed.
        style: Its style, as `scatter` takes it.
    """

    says: str
    shown: tuple[tuple[str, bool], ...]
    style: dict[str, Any]

    def shows(self, relation: Relation, derived: bool) -> bool:
        """Whether a relation has this symbol, and is derived or not, as asked."""
        return (relation.verdict, relation.closed) in self.shown and bool(relation.via) == derived


DISC: dict[str, Any] = {"marker": "o", "color": CONTAINS, "s": 74, "linewidths": 0}

RING = {"marker": "o", "facecolors": "none", "edgecolors": CONTAINS, "s": 62, "linewidths": 1.3}

BOLD = {"marker": "x", "color": CROSSED, "s": 46, "linewidths": 1.7}

THIN = {"marker": "x", "color": CROSSED, "s": 13, "linewidths": 1.0}

LOOKS = (
    Look("contains column exactly", (("exact", False), ("exact", True)), DISC),
    Look("contains column in the limit", (("limit", False), ("limit", True)), RING),
    Look("does not, not even in the limit", (("not", True),), BOLD),
    Look("does not contain it exactly", (("not", False), ("limit", True)), THIN),
)

CLAIMED, DERIVED = 1.0, 0.38


def _matrix_key(axes: Axes, size: float) -> None:
    """What the symbols mean."""
    handles = [axes.scatter([], [], **look.style) for look in LOOKS]
    axes.legend(
        handles, [look.says for look in LOOKS], loc="upper left", ncols=4, bbox_to_anchor=(0, -10),
        bbox_transform=axes.transData, fontsize=SMALL, labelcolor=TEXT_COLOUR, borderpad=0, borderaxespad=0,
        handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    axes.text(-6, -10, "Lighter: it follows.\nEmpty: open.", fontsize=SMALL, ha="right", va="top")
