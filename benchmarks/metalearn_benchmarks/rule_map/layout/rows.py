"""The row that each block stands in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from metalearn_benchmarks.rule_map.layout.blocks import Block
from metalearn_benchmarks.rule_map.layout.geometry import GAP, WIDTH


def assign_rows(
    blocks: Sequence[Block], edges: Sequence[tuple[Block, Block]], sizes: Mapping[Block, tuple[float, float]]
) -> dict[Block, int]:
    """Assign a row to each block, above all that it contains, and no row much wider than the others.

    Args:
        blocks: All blocks.
        edges: Pairs of a block and one above it.
        sizes: Width and height of each block.

    Returns:
        The row of each block; row 0 is the lowest.
    """
    rows: dict[Block, int] = dict.fromkeys(blocks, 0)
    for _ in blocks:
        for low, high in edges:
            rows[high] = max(rows[high], rows[low] + 1)
    tops = [b for b in blocks if not any(low == b for low, _ in edges)]
    for block in blocks:
        above = [rows[high] for low, high in edges if low == block]
        if above and not any(high == block for _, high in edges):
            rows[block] = min(above) - 1  # close to what contains it
    filled: dict[int, float] = defaultdict(float)
    for block in blocks:
        filled[rows[block]] += (sizes[block][0] + GAP) * (block not in tops)
    last = max(rows.values())
    for block in sorted(tops, key=lambda b: -sizes[b][0]):
        # what nothing contains may stand higher than it has to, where there is room
        width, free = sizes[block][0] + GAP, range(rows[block], last + 1)
        fitting = [row for row in free if filled[row] + width <= WIDTH]
        rows[block] = fitting[0] if fitting else min(free, key=lambda row: filled[row])
        filled[rows[block]] += width
    return rows
