"""The rows of the picture while their places are sought, after Sugiyama et al. (1981)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from metalearn_benchmarks.rule_map.blocks import Block, Link
from metalearn_benchmarks.rule_map.picture import (
    BETWEEN_ROWS,
    GAP,
    MUTUAL_GAP,
    PADDING,
    PASSAGE,
    WIDTH,
    Box,
    End,
    Item,
    Measure,
    Passage,
    Picture,
    Route,
)

SWEEPS = 60


class Layers:
    """The rows while their order and places are looked for."""

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
        self.ways = {link: self._way(link, rows) for link in upward}
        self.layers: list[list[Item]] = [[] for _ in range(max(rows.values(), default=0) + 1)]
        for block, row in rows.items():
            self.layers[row].append(block)
        for passage in dict.fromkeys(p for way in self.ways.values() for p in way[1:-1]):
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

    def _way(self, link: Link, rows: Mapping[Block, int]) -> list[End]:
        """From the special rule, through the rows between, to the general one."""
        start = self.home[link.special]
        between = range(rows[start] + 1, rows[self.home[link.general]])
        passages = [Passage(link.special, link.label, row, start.group) for row in between]
        return [link.special, *passages, link.general]

    def _segments(self) -> list[tuple[End, End]]:
        return list(dict.fromkeys(pair for way in self.ways.values() for pair in pairwise(way)))

    def _rank(self, item: Item) -> int:
        return self.rank[item.group]

    def _width(self, item: Item) -> float:
        return PASSAGE if isinstance(item, Passage) else self.sizes[item][0]

    def _ends(self, item: Item) -> list[End]:
        return [item] if isinstance(item, Passage) else list(dict.fromkeys([*item.names, item.key]))

    def _at(self, end: End) -> float:
        if isinstance(end, Passage):
            return self.x[end]
        return self.x[self.home[end]] + self.offsets[end]

    def _line_up(self, block: Block) -> None:
        """Places of the rules inside a block, in their order."""
        gap, at = PADDING if block.framed else MUTUAL_GAP, -self.sizes[block][0] / 2
        at += PADDING if block.framed else 0.0
        for name in self.members[block]:
            width = self.measure(name)[0]
            self.offsets[name] = at + width / 2
            at += width + gap
        if block.framed:
            self.offsets[block.key] = 0.0

    def _wanted(self, item: Item, neighbours: Mapping[End, list[End]]) -> float:
        """Where an item's edges are shortest, or where it stands."""
        pulls = [
            self._at(other) - (self._at(end) - self.x[item])
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
            others = [self._at(end) for end in self.below.get(name, ())]
            pulls[name] = sum(others) / len(others) if others else self._at(name)
        self.members[block].sort(key=lambda name: pulls[name])
        self._line_up(block)

    def settle(self) -> None:
        """Sort each row by where its neighbours are, again and again; keep the order that crosses least."""
        best, kept = self._crossings(), self._order()
        for sweep in range(SWEEPS):
            upwards = sweep % 2 == 0
            for layer in self.layers if upwards else reversed(self.layers):
                wanted = {item: self._wanted(item, self.below if upwards else self.above) for item in layer}
                layer.sort(key=lambda item: (self._rank(item), wanted[item]))
                self._place(layer, [wanted[item] for item in layer])
                for item in layer:
                    if isinstance(item, Block) and item.framed:
                        self._sort_members(item)
            if (now := self._crossings()) < best:
                best, kept = now, self._order()
        self.layers, self.members = kept
        for block in self.members:
            self._line_up(block)
        both = {end: self.below[end] + self.above[end] for end in [*self.below, *self.above]}
        for _ in range(SWEEPS):
            for layer in self.layers:
                self._place(layer, [self._wanted(item, both) for item in layer])

    def _order(self) -> tuple[list[list[Item]], dict[Block, list[str]]]:
        return [list(layer) for layer in self.layers], {b: list(n) for b, n in self.members.items()}

    def _crossings(self) -> int:
        """How many pairs of edges between neighbouring rows cross."""
        by_row = defaultdict(list)
        row_of = {end: r for r, layer in enumerate(self.layers) for item in layer for end in self._ends(item)}
        for low, high in self._segments():
            by_row[row_of[low]].append((self._at(low), self._at(high)))
        return sum(
            (a[0] - b[0]) * (a[1] - b[1]) < 0
            for lines in by_row.values()
            for index, a in enumerate(lines)
            for b in lines[:index]
        )

    def picture(self, mutual: list[Link]) -> Picture:
        """What was found, in places."""
        boxes: dict[str, Box] = {}
        y, bands = 0.0, []
        for layer in self.layers:
            height = max((self.sizes[item][1] for item in layer if isinstance(item, Block)), default=0.0)
            bands.append((y, y + height))
            for item in layer:
                if isinstance(item, Block):
                    middle = y + height / 2
                    for name in item.names:
                        boxes[name] = Box(self._at(name), middle, *self.measure(name))
                    if item.framed:
                        boxes[item.key] = Box(self.x[item], middle, *self.sizes[item])
            y += height + BETWEEN_ROWS
        routes = [Route(link, self._points(way, boxes, bands)) for link, way in self.ways.items()]
        return Picture(self.room, y - BETWEEN_ROWS, boxes, routes, mutual, list(self.members))

    def _points(
        self, way: Sequence[End], boxes: Mapping[str, Box], bands: Sequence[tuple[float, float]]
    ) -> list[tuple[float, float]]:
        first, *passages, last = way
        assert isinstance(first, str)
        assert isinstance(last, str)
        start, end = self._port(first, way[1], self.above), self._port(last, way[-2], self.below)
        box, row = boxes[first], self._row(first)
        points = [(start, box.y + box.height / 2), (start, bands[row][1])]
        for passage in passages:
            assert isinstance(passage, Passage)
            points += [(self.x[passage], edge) for edge in bands[passage.row]]
        box, row = boxes[last], self._row(last)
        return [*points, (end, bands[row][0]), (end, box.y - box.height / 2)]

    def _row(self, end: str) -> int:
        return next(row for row, layer in enumerate(self.layers) if self.home[end] in layer)

    def _port(self, end: str, other: End, neighbours: Mapping[End, list[End]]) -> float:
        """Where an edge meets a box: side by side in the order that they come from."""
        others = sorted(neighbours[end], key=lambda o: (self._at(o), str(o)))
        width = self.sizes[self.home[end]][0] if end.startswith("frame:") else self.measure(end)[0]
        step = min(16.0, 0.7 * width / len(others))
        return self._at(end) + step * (others.index(other) - (len(others) - 1) / 2)


def spread(wanted: Sequence[float], widths: Sequence[float], room: float) -> list[float]:
    """Centres, as near to the wanted ones as their order, their widths and the room allow."""
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
