"""Where rules stand in the picture of a map: special ones low, general ones high. Imports no torch.

Rules that stand alike towards others (the same ones contain them, or they contain the same ones) share
a frame, and an edge that all of a frame have is drawn once. Lengths are pixels at 100 per inch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from metalearn_benchmarks.rule_map.blocks import Block, Link, blocks, bundled, essential, groups
from metalearn_benchmarks.rule_map.layers import Layers
from metalearn_benchmarks.rule_map.picture import GAP, MUTUAL_GAP, PADDING, WIDTH, Measure, Picture
from metalearn_core.testing.theory.rule_map import RuleMap


def arrange(rule_map: RuleMap, measure: Measure) -> Picture:
    """The picture of a map: rows by longest path, groups side by side, few crossings."""
    edges = essential(rule_map)
    found = blocks(rule_map, edges)
    home = {name: block for block in found for name in (*block.names, block.key)}
    drawn = bundled([Link(e.special, e.general, e.kind) for e in edges], found)
    upward = [link for link in drawn if home[link.special] is not home[link.general]]
    sizes = {block: _size(block, measure) for block in found}
    rows = _rows(found, [(home[link.special], home[link.general]) for link in upward], sizes)
    rank = {group: index for index, group in enumerate(groups(rule_map))}
    layers = Layers(upward, home, rows, sizes, rank, measure)
    layers.settle()
    mutual = [link for link in drawn if home[link.special] is home[link.general]]
    return layers.picture(mutual)


def _size(block: Block, measure: Measure) -> tuple[float, float]:
    sizes = [measure(name) for name in block.names]
    gap = PADDING if block.framed else MUTUAL_GAP
    around = 2 * PADDING if block.framed else 0.0
    width = sum(width for width, _ in sizes) + gap * (len(sizes) - 1) + around
    return width, max(height for _, height in sizes) + around


def _rows(
    found: Sequence[Block], edges: Sequence[tuple[Block, Block]], sizes: Mapping[Block, tuple[float, float]]
) -> dict[Block, int]:
    """A row for each block, above all that it contains, and no row much wider than the others."""
    rows: dict[Block, int] = dict.fromkeys(found, 0)
    for _ in found:
        for low, high in edges:
            rows[high] = max(rows[high], rows[low] + 1)
    tops = [b for b in found if not any(low == b for low, _ in edges)]
    for block in found:
        above = [rows[high] for low, high in edges if low == block]
        if above and not any(high == block for _, high in edges):
            rows[block] = min(above) - 1  # close to what contains it
    filled: dict[int, float] = defaultdict(float)
    for block in found:
        filled[rows[block]] += (sizes[block][0] + GAP) * (block not in tops)
    last = max(rows.values())
    for block in sorted(tops, key=lambda b: -sizes[b][0]):
        # what nothing contains may stand higher than it has to, where there is room
        width, free = sizes[block][0] + GAP, range(rows[block], last + 1)
        fitting = [row for row in free if filled[row] + width <= WIDTH]
        rows[block] = fitting[0] if fitting else min(free, key=lambda row: filled[row])
        filled[rows[block]] += width
    return rows
