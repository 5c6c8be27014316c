"""The boxes of an ordered graph, and the ways that its links take between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metalearn_benchmarks.rule_map.layout.blocks import Block, Link
from metalearn_benchmarks.rule_map.layout.geometry import BETWEEN_ROWS, Box, Picture, Route
from metalearn_benchmarks.rule_map.layout.ordering import End, LayeredGraph, Passage


def make_picture(graph: LayeredGraph, mutual: list[Link]) -> Picture:
    """Return the picture of a graph whose rows are in order.

    Args:
        graph: The graph, with its places.
        mutual: The links within blocks, which the picture keeps.
    """
    boxes: dict[str, Box] = {}
    y, bands = 0.0, []
    for layer in graph.layers:
        height = max((graph.sizes[item][1] for item in layer if isinstance(item, Block)), default=0.0)
        bands.append((y, y + height))
        for item in layer:
            if isinstance(item, Block):
                middle = y + height / 2
                for name in item.names:
                    boxes[name] = Box(graph.position(name), middle, *graph.measure(name))
                if item.framed:
                    boxes[item.key] = Box(graph.x[item], middle, *graph.sizes[item])
        y += height + BETWEEN_ROWS
    routes = [Route(link, _points(graph, path, boxes, bands)) for link, path in graph.paths.items()]
    return Picture(graph.room, y - BETWEEN_ROWS, boxes, routes, mutual, list(graph.members))


def _points(
    graph: LayeredGraph,
    path: Sequence[End],
    boxes: Mapping[str, Box],
    bands: Sequence[tuple[float, float]],
) -> list[tuple[float, float]]:
    """The points of a link's way; `bands` are the lower and upper edges of the rows."""
    first, *passages, last = path
    assert isinstance(first, str)
    assert isinstance(last, str)
    start, end = _port(graph, first, path[1], graph.above), _port(graph, last, path[-2], graph.below)
    box, row = boxes[first], graph.row(first)
    points = [(start, box.y + box.height / 2), (start, bands[row][1])]
    for passage in passages:
        assert isinstance(passage, Passage)
        points += [(graph.x[passage], edge) for edge in bands[passage.row]]
    box, row = boxes[last], graph.row(last)
    return [*points, (end, bands[row][0]), (end, box.y - box.height / 2)]


def _port(graph: LayeredGraph, end: str, other: End, neighbours: Mapping[End, list[End]]) -> float:
    """Where a link meets a box: side by side with others, in the order that they come from."""
    others = sorted(neighbours[end], key=lambda o: (graph.position(o), str(o)))
    width = graph.sizes[graph.home[end]][0] if end.startswith("frame:") else graph.measure(end)[0]
    step = min(16.0, 0.7 * width / len(others))
    return graph.position(end) + step * (others.index(other) - (len(others) - 1) / 2)
