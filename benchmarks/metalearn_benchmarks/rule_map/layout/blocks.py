"""Which rules stand together in the picture of a map, and which links have to be drawn.

Rules that are related alike to others (the same rules contain them, or they contain the same rules) share a
frame. A link that all rules of a frame have is drawn once, from or to the frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs

from metalearn_core.testing.theory.map_parts import Edge
from metalearn_core.testing.theory.rule_map import RuleMap


@attrs.frozen
class Block:
    """Rules that stand together: one, several that contain each other, or several in a frame."""

    names: tuple[str, ...]
    group: str
    framed: bool = False

    @property
    def key(self) -> str:
        """The name that links have for the frame, or for the one rule in it."""
        return f"frame:{self.names[0]}" if self.framed else self.names[0]


@attrs.frozen
class Link:
    """A line to draw from a rule or frame to another.

    Args:
        special: Name of the special rule, or key of its frame.
        general: Name of the general rule, or key of its frame.
        label: The kind of an edge, or the number of a crossed-out one.
    """

    special: str
    general: str
    label: str


def group_names(rule_map: RuleMap) -> list[str]:
    """Return the groups of the map in its order, the group `others` last."""
    names = dict.fromkeys(node.group for node in rule_map.nodes.values())
    return sorted(names, key=lambda group: group == "others")


def essential_edges(rule_map: RuleMap) -> list[Edge]:
    """Return the claimed edges that do not follow from the other edges."""
    kept = {(e.special, e.general): e for e in sorted(rule_map.edges, key=lambda e: e.kind, reverse=True)}
    for pair, edge in list(kept.items()):
        others = [e for key, e in kept.items() if key != pair and (edge.kind == "limit" or e.kind == "exact")]
        if _has_path(others, *pair):
            del kept[pair]
    return list(kept.values())


def _has_path(edges: Sequence[Edge], start: str, end: str) -> bool:
    """Whether a path of edges goes from one rule up to another."""
    reached, todo = {start}, [start]
    while todo:
        now = todo.pop()
        for edge in edges:
            if edge.special == now and edge.general not in reached:
                reached.add(edge.general)
                todo.append(edge.general)
    return end in reached


def make_blocks(rule_map: RuleMap, edges: Sequence[Edge]) -> list[Block]:
    """Put every rule into one block, in the map's order."""
    contained = rule_map.contained()
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, node in rule_map.nodes.items():
        mutual = [b for (a, b) in contained if a == name and (b, a) in contained]
        above = frozenset((e.general, e.kind) for e in edges if e.special == name)
        below = frozenset((e.special, e.kind) for e in edges if e.general == name)
        if mutual:
            alike["each other", frozenset([name, *mutual])].append(name)
        elif above or below:
            alike["above" if above else "below", node.group, above or below].append(name)
        else:
            alike["alone", name].append(name)
    return [
        Block(tuple(names), rule_map.nodes[names[0]].group, len(names) > 1 and key[0] != "each other")
        for key, names in alike.items()
    ]


def bundle_links(links: Iterable[Link], blocks: Iterable[Block]) -> list[Link]:
    """Replace links that all rules of a frame have by one link of the frame."""
    left = dict.fromkeys(links)
    for block in blocks:
        for end in ("special", "general"):
            for link in list(left):
                each = [attrs.evolve(link, **{end: name}) for name in block.names]
                if block.framed and link in each and all(one in left for one in each):
                    left = {key: None for key in left if key not in each}
                    left[attrs.evolve(link, **{end: block.key})] = None
    return list(left)
