"""The picture of a map: boxes, arrows and the points that they pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

from metalearn_benchmarks.rule_map.blocks import Block, Link

Measure: TypeAlias = Callable[[str], tuple[float, float]]
"""Width and height of a rule's box, by the rule's name."""

WIDTH, GAP, MUTUAL_GAP, PADDING, BETWEEN_ROWS, PASSAGE = 870.0, 17.0, 30.0, 7.0, 62.0, 4.0


@attrs.frozen
class Passage:
    """Where edges that go up more than one row pass one between other things."""

    special: str
    kind: str
    row: int
    group: str


Item: TypeAlias = Block | Passage

End: TypeAlias = str | Passage


@attrs.frozen
class Box:
    """Centre and size."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Box) -> bool:
        """Whether both cover a point."""
        near = abs(self.x - other.x) * 2 < self.width + other.width
        return near and abs(self.y - other.y) * 2 < self.height + other.height


@attrs.frozen
class Route:
    """A link, and the points of its way up: out of a box, through the rows between, into a box."""

    link: Link
    points: list[tuple[float, float]]


@attrs.frozen
class Picture:
    """All places."""

    width: float
    height: float
    boxes: Mapping[str, Box]
    """By the rule's name, and by the frame's key."""
    routes: list[Route]
    mutual: list[Link]
    """Between neighbours that contain each other, to be drawn sideways."""
    found: list[Block]
