"""The order and the places of the blocks in each row, by the barycentre method of Sugiyama et al. (1981)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import attrs

from metalearn_benchmarks.rule_map.layout.blocks import Block, Link
from metalearn_benchmarks.rule_map.layout.geometry import GAP, MUTUAL_GAP, PADDING, PASSAGE, WIDTH, Measure

SWEEPS = 60
"""How often the rows are sorted, and how often their items are moved."""


@attrs.frozen
class Passage:
    """A place in a row where links pass that start below it and end above it.

    Args:
        special: The rule or frame from which the links start.
        kind: The label that all of them have.
        row: The row that they pass.
        group: The group of `special`.
    """

    special: str
    kind: str
    row: int
    group: str


Item: TypeAlias = Block | Passage
"""A thing that stands in a row."""
End: TypeAlias = str | Passage
"""An end of a segment: the name of a rule, the key of a frame, or a passage."""


class LayeredGraph:
    """Blocks and passages in rows, while their order and their places are sought.

    Args:
        upward: The links between blocks, each from a row to a higher one.
        home: The block of each rule's name and each frame's key.
        rows: The row of each block.
        sizes: Width and height of each block.
        rank: The place of each group from left to right.
        measure: Width and height of a rule's box, by the rule's name.
    """

    def __init__(
        self,
        upward: Sequence[Link],
        home: Mapping[str, Block],
        rows: Mapping[Block, int],
        sizes: Mapping[Block, tuple[float, float]],
        rank: Mapping[str, int],
        measure: Measure,
    ) -> None:
        self.home, self.sizes, self.rank, self.measure = home, sizes, rank, measure
        self.members = {block: list(block.names) for block in rows}
        self.paths = {link: self._path(link, rows) for link in upward}
        self.layers: list[list[Item]] = [[] for _ in range(max(rows.values(), default=0) + 1)]
        for block, row in rows.items():
            self.layers[row].append(block)
        for passage in dict.fromkeys(p for path in self.paths.values() for p in path[1:-1]):
            assert isinstance(passage, Passage)
            self.layers[passage.row].append(passage)
        needed = [sum(self._width(item) + GAP for item in layer) - GAP for layer in self.layers]
        self.room = max(WIDTH, *needed)
        # lists, since the order of a set is another one in every process
        self.below: dict[End, list[End]] = defaultdict(list)
        self.above: dict[End, list[End]] = defaultdict(list)
        for low, high in self._segments():
            self.above[low].append(high)
            self.below[high].append(low)
        self.x: dict[Item, float] = {}
        self.offsets: dict[str, float] = {}
        for layer in self.layers:
            layer.sort(key=self._rank)
            self._place(layer, [self.room / 2] * len(layer))
        for block in self.members:
            self._line_up(block)

    def position(self, end: End) -> float:
        """Return the horizontal centre of a rule, a frame or a passage."""
        if isinstance(end, Passage):
            return self.x[end]
        return self.x[self.home[end]] + self.offsets[end]

    def row(self, end: str) -> int:
        """Return the row of a rule or a frame."""
        return next(row for row, layer in enumerate(self.layers) if self.home[end] in layer)

    def reduce_crossings(self) -> None:
        """Sort each row by where its neighbours are, again and again; keep the order that crosses least."""
        fewest, best = self.crossings(), self._order()
        for sweep in range(SWEEPS):
            upwards = sweep % 2 == 0
            for layer in self.layers if upwards else reversed(self.layers):
                self._sort(layer, self.below if upwards else self.above)
            if (now := self.crossings()) < fewest:
                fewest, best = now, self._order()
        self.layers, self.members = best
        for block in self.members:
            self._line_up(block)

    def straighten(self) -> None:
        """Move the items of each row to where their links are shortest, and keep their order."""
        both = {end: self.below[end] + self.above[end] for end in [*self.below, *self.above]}
        for _ in range(SWEEPS):
            for layer in self.layers:
                self._place(layer, [self._barycentre(item, both) for item in layer])

    def crossings(self) -> int:
        """Count the pairs of segments between neighbouring rows that cross."""
        by_row = defaultdict(list)
        row_of = {end: r for r, layer in enumerate(self.layers) for item in layer for end in self._ends(item)}
        for low, high in self._segments():
            by_row[row_of[low]].append((self.position(low), self.position(high)))
        return sum(
            (a[0] - b[0]) * (a[1] - b[1]) < 0
            for lines in by_row.values()
            for index, a in enumerate(lines)
            for b in lines[:index]
        )

    def _path(self, link: Link, rows: Mapping[Block, int]) -> list[End]:
        """From the special rule, through the rows between, to the general one."""
        start = self.home[link.special]
        between = range(rows[start] + 1, rows[self.home[link.general]])
        passages = [Passage(link.special, link.label, row, start.group) for row in between]
        return [link.special, *passages, link.general]

    def _segments(self) -> list[tuple[End, End]]:
        return list(dict.fromkeys(pair for path in self.paths.values() for pair in pairwise(path)))

    def _rank(self, item: Item) -> int:
        return self.rank[item.group]

    def _width(self, item: Item) -> float:
        return PASSAGE if isinstance(item, Passage) else self.sizes[item][0]

    def _ends(self, item: Item) -> list[End]:
        return [item] if isinstance(item, Passage) else list(dict.fromkeys([*item.names, item.key]))

    def _order(self) -> tuple[list[list[Item]], dict[Block, list[str]]]:
        return [list(layer) for layer in self.layers], {b: list(n) for b, n in self.members.items()}

    def _sort(self, layer: list[Item], neighbours: Mapping[End, list[End]]) -> None:
        """Sort a row by its neighbours below or above, the groups side by side, and the rules in frames."""
        wanted = {item: self._barycentre(item, neighbours) for item in layer}
        layer.sort(key=lambda item: (self._rank(item), wanted[item]))
        self._place(layer, [wanted[item] for item in layer])
        for item in layer:
            if isinstance(item, Block) and item.framed:
                self._sort_members(item)

    def _barycentre(self, item: Item, neighbours: Mapping[End, list[End]]) -> float:
        """Where an item's links are shortest, or where it stands."""
        pulls = [
            self.position(other) - (self.position(end) - self.x[item])
            for end in self._ends(item)
            for other in neighbours.get(end, ())
        ]
        return sum(pulls) / len(pulls) if pulls else self.x[item]

    def _place(self, layer: Sequence[Item], wanted: Sequence[float]) -> None:
        places = spread(wanted, [self._width(item) for item in layer], self.room)
        self.x.update(zip(layer, places, strict=True))

    def _sort_members(self, block: Block) -> None:
        pulls = {}
        for name in block.names:
            others = [self.position(end) for end in self.below.get(name, ())]
            pulls[name] = sum(others) / len(others) if others else self.position(name)
        self.members[block].sort(key=lambda name: pulls[name])
        self._line_up(block)

    def _line_up(self, block: Block) -> None:
        """Set the places of the rules inside a block, in their order."""
        gap, at = PADDING if block.framed else MUTUAL_GAP, -self.sizes[block][0] / 2
        at += PADDING if block.framed else 0.0
        for name in self.members[block]:
            width = self.measure(name)[0]
            self.offsets[name] = at + width / 2
            at += width + gap
        if block.framed:
            self.offsets[block.key] = 0.0


def spread(wanted: Sequence[float], widths: Sequence[float], room: float) -> list[float]:
    """Return centres as near to the wanted ones as their order, their widths and the room allow.

    Args:
        wanted: The centres that would be best, from left to right.
        widths: The widths of the things that stand there.
        room: The width of the row.
    """
    offsets = [0.0]
    for left, right in pairwise(widths):
        offsets.append(offsets[-1] + (left + right) / 2 + GAP)
    pools: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=False):
        mean, count = want - offset, 1
        while pools and pools[-1][0] >= mean:  # those that would overlap move together
            before, many = pools.pop()
            mean, count = (mean * count + before * many) / (count + many), count + many
        pools.append((mean, count))
    low, high = (widths[0] / 2, room - widths[-1] / 2 - offsets[-1]) if widths else (0.0, 0.0)
    starts = [min(max(mean, low), high) for mean, count in pools for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=False)]
