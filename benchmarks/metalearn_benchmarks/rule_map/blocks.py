"""What stands together in the picture of the map, and the arrows that are to be drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs

from metalearn_core.testing.theory.map_parts import Edge
from metalearn_core.testing.theory.rule_map import RuleMap


def groups(rule_map: RuleMap) -> list[str]:
    """The groups of the map in its order, what belongs to none last."""
    found = dict.fromkeys(node.group for node in rule_map.nodes.values())
    return sorted(found, key=lambda group: group == "others")


def essential(rule_map: RuleMap) -> list[Edge]:
    """The claimed edges that do not follow from the others."""
    kept = {(e.special, e.general): e for e in sorted(rule_map.edges, key=lambda e: e.kind, reverse=True)}
    for pair, edge in list(kept.items()):
        others = [e for key, e in kept.items() if key != pair and (edge.kind == "limit" or e.kind == "exact")]
        if _leads(others, *pair):
            del kept[pair]
    return list(kept.values())


def _leads(edges: Sequence[Edge], start: str, end: str) -> bool:
    """Whether a path of edges goes from one rule up to another."""
    seen, todo = {start}, [start]
    while todo:
        now = todo.pop()
        for edge in edges:
            if edge.special == now and edge.general not in seen:
                seen.add(edge.general)
                todo.append(edge.general)
    return end in seen


@attrs.frozen
class Block:
    """Rules that stand together: one, several that contain each other, or several in a frame."""

    names: tuple[str, ...]
    group: str
    framed: bool = False

    @property
    def key(self) -> str:
        """What edges call the frame, or the one rule in it."""
        return f"frame:{self.names[0]}" if self.framed else self.names[0]


def blocks(rule_map: RuleMap, edges: Sequence[Edge]) -> list[Block]:
    """Every rule in one block, in the map's order."""
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


@attrs.frozen
class Link:
    """An arrow to draw, from the key of a rule or frame to another; `label` is its kind or its number."""

    special: str
    general: str
    label: str


def bundled(links: Iterable[Link], found: Iterable[Block]) -> list[Link]:
    """The same links, those that all rules of a frame have drawn once."""
    left = dict.fromkeys(links)
    for block in found:
        for end in ("special", "general"):
            for link in list(left):
                each = [attrs.evolve(link, **{end: name}) for name in block.names]
                if block.framed and link in each and all(one in left for one in each):
                    left = {key: None for key in left if key not in each}
                    left[attrs.evolve(link, **{end: block.key})] = None
    return list(left)
