"""Arrange the rules of a map in a layered picture.

This code is kept although igraph has `layout_sugiyama`. On the map of the shipped rules and plugins igraph,
given the same rows, takes boxes for points, so that 5 boxes overlap in a picture of 1800 pixels and none
only from 5355 pixels on, where this layout needs 976. igraph's order alone has 43 crossings and tears 2
groups of rules apart, where this one has 82 with all groups whole, and 35 when groups may be torn.
"""

from __future__ import annotations

from metalearn_benchmarks.rule_map.layout.blocks import (
    Link,
    bundle_links,
    essential_edges,
    group_names,
    make_blocks,
)
from metalearn_benchmarks.rule_map.layout.geometry import Measure, Picture, block_size
from metalearn_benchmarks.rule_map.layout.ordering import LayeredGraph
from metalearn_benchmarks.rule_map.layout.routes import make_picture
from metalearn_benchmarks.rule_map.layout.rows import assign_rows
from metalearn_core.testing.theory.rule_map import RuleMap


def arrange(rule_map: RuleMap, measure: Measure) -> Picture:
    """Lay out a map: rows by longest path, the groups of a row side by side, few crossings.

    Args:
        rule_map: The map.
        measure: Width and height of a rule's box, by the rule's name.

    Returns:
        The picture, the same for the same map in every process.
    """
    edges = essential_edges(rule_map)
    blocks = make_blocks(rule_map, edges)
    home = {name: block for block in blocks for name in (*block.names, block.key)}
    links = bundle_links([Link(e.special, e.general, e.kind) for e in edges], blocks)
    upward = [link for link in links if home[link.special] is not home[link.general]]
    mutual = [link for link in links if home[link.special] is home[link.general]]
    sizes = {block: block_size(block, measure) for block in blocks}
    rows = assign_rows(blocks, [(home[link.special], home[link.general]) for link in upward], sizes)
    rank = {group: index for index, group in enumerate(group_names(rule_map))}
    graph = LayeredGraph(upward, home, rows, sizes, rank, measure)
    graph.reduce_crossings()
    graph.straighten()
    return make_picture(graph, mutual)
