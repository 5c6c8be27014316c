"""The map of rules as two figures: which contains which, and a matrix of all pairs. Imports no torch."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from metalearn_benchmarks.plotting.style import COLOURS, STYLE, TEXT
from metalearn_benchmarks.rule_map.canvas import (
    BADGE,
    EDGE,
    FONT,
    GROUP_COLOURS,
    KEY,
    LINE,
    PIXEL,
    SMALL,
    TOP,
    box_size,
    canvas,
    group_colour,
    text_width,
    wrapped,
)
from metalearn_benchmarks.rule_map.layout.arrangement import arrange
from metalearn_benchmarks.rule_map.layout.blocks import Link, bundle_links, group_names
from metalearn_benchmarks.rule_map.layout.geometry import Box, Picture, Route
from metalearn_benchmarks.rule_map.text import Law, laws, sentence
from metalearn_core.testing.theory.rule_map import RuleMap

CONTAINS, CROSSED = COLOURS[0], COLOURS[1]


def draw_map(rule_map: RuleMap, *, witnesses: bool = True) -> Figure:
    """Rules, special ones low; what contains what, and what does not, numbered as `laws` does.

    `witnesses`: write the numbered list beneath.
    """
    with matplotlib.rc_context(STYLE):
        sizes = {name: box_size(wrapped(node.title)) for name, node in rule_map.nodes.items()}
        picture = arrange(rule_map, sizes.__getitem__)
        numbered = laws(rule_map)
        width = picture.width + 2 * EDGE
        lines = _listed(rule_map, numbered, width) if witnesses else []
        beneath = TOP + KEY + LINE * len(lines) + TOP * bool(lines)
        figure, axes = canvas(width, picture.height + TOP + beneath, low=-beneath)
        _frames(axes, rule_map, picture)
        _crossed(axes, rule_map, picture, numbered)
        _routes(axes, picture.routes)
        for link in picture.mutual:
            _sideways(axes, link, picture)
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
            wrapped(node.title),
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


def _look(kind: str) -> dict[str, Any]:
    dashes = (0, (4, 2.2)) if kind == "limit" else "-"
    return {"edgecolor": CONTAINS, "linewidth": 1.1, "linestyle": dashes, "facecolor": "none", "zorder": 4}


def _routes(axes: Axes, routes: Sequence[Route]) -> None:
    """Up, straight beside boxes, bent between rows, a head on each end; what is shared is drawn once."""
    drawn = set()
    for route in routes:
        *points, (x, y) = route.points
        points.append((x, y - 5))
        link = route.link
        *shared, last = pairwise(points[i : i + 2] for i in range(0, len(points), 2))
        for step, ((a, b), (c, d)) in enumerate([*shared, last]):
            if (a, b, c, d, link.label) in drawn:
                continue
            drawn.add((a, b, c, d, link.label))
            bend = (c[1] - b[1]) * 0.55
            vertices = [a, b, (b[0], b[1] + bend), (c[0], c[1] - bend), c, d]
            codes = [Path.MOVETO, Path.LINETO, *[Path.CURVE4] * 3, Path.LINETO]
            name = f"map-edge-{link.special}-{link.general}" if step == len(shared) else None
            axes.add_patch(PathPatch(Path(vertices, codes), gid=name, **_look(link.label)))
        _head(axes, x, y, (0, 1))


def _head(axes: Axes, x: float, y: float, way: tuple[float, float]) -> None:
    """A triangle with its tip at a point."""
    (a, b), long, wide = way, 7.0, 3.2
    corners = [
        (x, y),
        (x - long * a - wide * b, y - long * b + wide * a),
        (x - long * a + wide * b, y - long * b - wide * a),
    ]
    axes.fill(*zip(*corners, strict=True), color=CONTAINS, linewidth=0, zorder=4)


def _sideways(axes: Axes, link: Link, picture: Picture) -> None:
    """Between neighbours that contain each other."""
    low, high = picture.boxes[link.special], picture.boxes[link.general]
    way = 1 if high.x > low.x else -1
    y = low.y + 4 * way
    start, end = low.x + way * low.width / 2, high.x - way * high.width / 2
    path = Path([(start, y), (end - 5 * way, y)])
    axes.add_patch(PathPatch(path, gid=f"map-edge-{link.special}-{link.general}", **_look(link.label)))
    _head(axes, end, y, (way, 0))


def _crossed(axes: Axes, rule_map: RuleMap, picture: Picture, numbered: Sequence[Law]) -> None:
    """For each rule the numbers of its invariants, and from each of their witnesses a crossed-out line."""
    links = [
        Link(special, general, str(law.number))
        for law in numbered
        for general in law.generals
        for special in law.specials
    ]
    kept = defaultdict(list)
    for link in bundle_links(links, picture.blocks):
        kept[link.general, link.label].append(link)
    badges: dict[str, int] = defaultdict(int)
    for (general, label), lines in kept.items():
        x, y = _badge_place(picture.boxes[general], badges[general])
        badges[general] += 1
        for link in lines:
            _crossed_line(axes, picture, link, (x, y))
        _badge(axes, x, y, label)


def _badge_place(box: Box, index: int) -> tuple[float, float]:
    """Down the right side of a box, then down the left one, then further out."""
    a_side = max(1, int(box.height // (2 * BADGE)))
    column, row = divmod(index, a_side)
    out = box.width / 2 + 2 + 2 * BADGE * (column // 2)
    return box.x + (-out if column % 2 else out), box.y + box.height / 2 - 2 - 2 * BADGE * row


def _badge(axes: Axes, x: float, y: float, label: str) -> None:
    axes.plot(
        [x], [y], "o", markersize=2 * BADGE * PIXEL, color=CROSSED, markeredgewidth=0, zorder=7,
    )  # fmt: skip
    axes.text(x, y - 0.3, label, color="white", fontsize=6.2, ha="center", va="center_baseline", zorder=8)


def _crossed_line(axes: Axes, picture: Picture, link: Link, end: tuple[float, float]) -> None:
    """A thin bow from a box to a number, hidden by the boxes between, with a cross on it."""
    box = picture.boxes[link.special]
    up = 1 if end[1] > box.y + box.height / 2 else -1 if end[1] < box.y - box.height / 2 else 0
    side = 1 if end[0] > box.x else -1
    x, y = (0.3 * side, up / 2) if up else (side / 2, 0)
    start = np.array([box.x + x * box.width, box.y + y * box.height])
    along = np.array(end) - start
    middle = start + along / 2 + 0.1 * np.array([-along[1], along[0]])
    t = np.linspace(0, 1, 161)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * np.array(end)
    runs = _seen(points, picture)
    for run in runs:
        line = axes.plot(*run.T, color=CROSSED, alpha=0.4, linewidth=0.7, zorder=2, solid_capstyle="butt")[0]
    line.set_gid(f"map-crossed-{link.special}-{link.general}-{link.label}")
    longest = max(runs, key=len)
    axes.plot(*longest[len(longest) // 2], "x", color=CROSSED, markersize=4.2, markeredgewidth=1.0, zorder=3)


def _seen(points: Any, picture: Picture) -> list[Any]:
    """The parts of a line that no rule's box hides; all of it where nothing would be left."""
    boxes = [box for key, box in picture.boxes.items() if not key.startswith("frame:")]
    centres = np.array([(box.x, box.y) for box in boxes])
    halves = np.array([(box.width / 2 + 1.5, box.height / 2 + 1.5) for box in boxes])
    hidden = (np.abs(points[:, None] - centres) < halves).all(-1).any(-1)
    parts = np.split(np.arange(len(points)), np.flatnonzero(np.diff(hidden)) + 1)
    return [points[part] for part in parts if not hidden[part[0]]] or [points]


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
        borderpad=0, borderaxespad=0, handlelength=2.2, columnspacing=1.3, labelcolor=TEXT,
    )  # fmt: skip


def _listed(rule_map: RuleMap, numbered: Sequence[Law], width: float) -> list[str]:
    """The numbered list in lines, hanging under its numbers."""
    sentences = {law: sentence(rule_map, law) for law in numbered}
    letter = text_width(" ".join(sentences.values()), SMALL) / max(1, sum(map(len, sentences.values())))
    found = []
    for law, text in sentences.items():
        first, *more = textwrap.wrap(text, int(0.95 * (width - 2 * EDGE) / letter) - 6)
        found += [f"{law.number:>2}  {first}", *(f"      {line}" for line in more)]
    return found
