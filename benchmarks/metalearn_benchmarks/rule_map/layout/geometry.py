"""The data types of a layout, and the lengths between things. Lengths are pixels at 100 per inch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

from metalearn_benchmarks.rule_map.layout.blocks import Block, Link

Measure: TypeAlias = Callable[[str], tuple[float, float]]
"""Width and height of a rule's box, by the rule's name."""

WIDTH = 870.0
"""The width that the rows should not exceed."""
GAP, MUTUAL_GAP, PADDING, BETWEEN_ROWS, PASSAGE = 17.0, 30.0, 7.0, 62.0, 4.0
"""Between neighbours of a row, between rules that contain each other, inside a frame, between rows; the
width of a passage."""


@attrs.frozen
class Box:
    """A rectangle, given by its centre and its size."""

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
    """A finished layout.

    Args:
        width: Width of the picture.
        height: Height of the picture.
        boxes: The boxes by the rule's name, and by the frame's key.
        routes: The ways of the links that go from a row to a higher one.
        mutual: Links between neighbours that contain each other, to be drawn sideways.
        blocks: All blocks, each with its rules.
    """

    width: float
    height: float
    boxes: Mapping[str, Box]
    routes: list[Route]
    mutual: list[Link]
    blocks: list[Block]


def block_size(block: Block, measure: Measure) -> tuple[float, float]:
    """Width and height of a block, whose rules stand side by side."""
    sizes = [measure(name) for name in block.names]
    gap = PADDING if block.framed else MUTUAL_GAP
    around = 2 * PADDING if block.framed else 0.0
    width = sum(width for width, _ in sizes) + gap * (len(sizes) - 1) + around
    return width, max(height for _, height in sizes) + around
