"""The crossed-out lines of the map's picture: what does not contain what, and the number of the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from metalearn_benchmarks.rule_map.canvas import CROSSED, PIXEL
from metalearn_benchmarks.rule_map.layout.blocks import Link, bundle_links
from metalearn_benchmarks.rule_map.layout.geometry import Box, Picture
from metalearn_benchmarks.rule_map.text import Law

BADGE = 6.5
"""The radius of a number's disc."""


def draw_exclusions(axes: Axes, picture: Picture, numbered: Sequence[Law]) -> None:
    """Draw the numbers of invariants at their rules, and crossed-out lines from the witnesses.

    Args:
        axes: The axes, in pixels.
        picture: The layout.
        numbered: The laws of the map.
    """
    links = [
        Link(special, general, str(law.number))
        for law in numbered
        for general in law.generals
        for special in law.specials
    ]
    by_number = defaultdict(list)
    for link in bundle_links(links, picture.blocks):
        by_number[link.general, link.label].append(link)
    badges: dict[str, int] = defaultdict(int)
    for (general, label), lines in by_number.items():
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
    runs = _visible_parts(points, picture)
    for run in runs:
        line = axes.plot(*run.T, color=CROSSED, alpha=0.4, linewidth=0.7, zorder=2, solid_capstyle="butt")[0]
    line.set_gid(f"map-crossed-{link.special}-{link.general}-{link.label}")
    longest = max(runs, key=len)
    axes.plot(*longest[len(longest) // 2], "x", color=CROSSED, markersize=4.2, markeredgewidth=1.0, zorder=3)


def _visible_parts(points: Any, picture: Picture) -> list[Any]:
    """The parts of a line that no rule's box hides; all of it where nothing would be left."""
    boxes = [box for key, box in picture.boxes.items() if not key.startswith("frame:")]
    centres = np.array([(box.x, box.y) for box in boxes])
    halves = np.array([(box.width / 2 + 1.5, box.height / 2 + 1.5) for box in boxes])
    hidden = (np.abs(points[:, None] - centres) < halves).all(-1).any(-1)
    parts = np.split(np.arange(len(points)), np.flatnonzero(np.diff(hidden)) + 1)
    return [points[part] for part in parts if not hidden[part[0]]] or [points]
