"""The arrows of the map's picture: what contains what."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from metalearn_benchmarks.rule_map.canvas import CONTAINS
from metalearn_benchmarks.rule_map.layout.blocks import Link
from metalearn_benchmarks.rule_map.layout.geometry import Picture, Route


def _style(kind: str) -> dict[str, Any]:
    dashes = (0, (4, 2.2)) if kind == "limit" else "-"
    return {"edgecolor": CONTAINS, "linewidth": 1.1, "linestyle": dashes, "facecolor": "none", "zorder": 4}


def draw_routes(axes: Axes, routes: Sequence[Route]) -> None:
    """Draw arrows upwards: straight beside boxes, bent between rows; what arrows share is drawn once."""
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
            axes.add_patch(PathPatch(Path(vertices, codes), gid=name, **_style(link.label)))
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


def draw_sideways(axes: Axes, link: Link, picture: Picture) -> None:
    """Draw an arrow from a rule to one of its row; each contains the other; it passes behind others."""
    low, high = picture.boxes[link.special], picture.boxes[link.general]
    way = 1 if high.x > low.x else -1
    y = low.y + 4 * way
    start, end = low.x + way * low.width / 2, high.x - way * high.width / 2
    stops = [(start, y)]
    between = [box for key, box in picture.boxes.items() if not key.startswith("frame:")]
    for box in sorted(between, key=lambda box: way * box.x):
        if abs(box.y - y) < box.height / 2 and way * start < way * box.x < way * end:
            stops += [(box.x - way * box.width / 2, y), (box.x + way * box.width / 2, y)]
    stops.append((end - 5 * way, y))
    path = Path(stops, [Path.MOVETO, Path.LINETO] * (len(stops) // 2))
    axes.add_patch(PathPatch(path, gid=f"map-edge-{link.special}-{link.general}", **_style(link.label)))
    _head(axes, end, y, (way, 0))
