"""The map of rules in words and as data, and its numbered laws. Imports no torch."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import attrs

from metalearn_core.testing.theory.map_parts import CrossedEdge, Edge, Relation
from metalearn_core.testing.theory.rule_map import RuleMap

Pair: TypeAlias = tuple[str, str]
KINDS = {"exact": "exactly", "limit": "in the limit"}


@attrs.frozen
class Law:
    """An invariant that some rules keep, and the rules that break it.

    Args:
        number: The number of the law in the picture.
        invariant: What the general rules keep.
        closed: Whether limits keep it too.
        broken_by: Pairs of a special rule and its witness.
        generals: The rules that keep it.
    """

    number: int
    invariant: str
    closed: bool
    broken_by: tuple[tuple[str, str], ...]
    generals: tuple[str, ...]

    @property
    def specials(self) -> tuple[str, ...]:
        """The rules that break it."""
        return tuple(special for special, _ in self.broken_by)

    @property
    def by_witness(self) -> dict[str, list[str]]:
        """The special rules of each witness."""
        specials: dict[str, list[str]] = defaultdict(list)
        for special, witness in self.broken_by:
            specials[witness].append(special)
        return specials


def laws(rule_map: RuleMap) -> list[Law]:
    """Number the crossed-out edges by invariant.

    Rules that keep an invariant against the same witnesses share a law.
    """
    broken: dict[tuple[str, bool, str], list[tuple[str, str]]] = defaultdict(list)
    for crossed in rule_map.crossed:
        broken[crossed.invariant, crossed.closed, crossed.general].append((crossed.special, crossed.witness))
    generals: dict[tuple[str, bool, tuple[tuple[str, str], ...]], list[str]] = defaultdict(list)
    for (invariant, closed, general), by in broken.items():
        generals[invariant, closed, tuple(by)].append(general)
    return [
        Law(number, *key, tuple(keepers)) for number, (key, keepers) in enumerate(generals.items(), start=1)
    ]


def titles(rule_map: RuleMap, names: Sequence[str]) -> str:
    """Return the titles of several rules in one text, each complete."""
    return ", ".join(whole_title(rule_map, name) for name in names)


def whole_title(rule_map: RuleMap, name: str) -> str:
    """Return the complete title of a rule, where the map shortens it to "… with GELU"."""
    node = rule_map.nodes[name]
    if not node.title.startswith("… "):
        return node.title
    rest = node.title.removeprefix("… ")
    return f"{node.group.capitalize()}{' ' if rest.startswith('with ') else ': '}{rest}"


def sentence(rule_map: RuleMap, law: Law) -> str:
    """Return a law and its witnesses in one line, without the number."""
    witnesses = "; ".join(
        f"{titles(rule_map, names)} ({witness})" for witness, names in law.by_witness.items()
    )
    limits = "" if law.closed else ", which limits may reach"
    return f"{titles(rule_map, law.generals)}: {law.invariant}. Not so {witnesses}{limits}."


LEAST_WIDTH, WIDTH = 60, 136
"""Of a line, in characters: longer ones are hard to follow."""


def as_text(rule_map: RuleMap, names: Sequence[str] = (), width: int = WIDTH) -> str:
    """Return the map in words.

    Args:
        rule_map: The map.
        names: The rules to describe; all where none is named.
        width: The longest line, in characters; from `LEAST_WIDTH` to `WIDTH`.
    """
    width = max(LEAST_WIDTH, min(width, WIDTH))
    known = rule_map.relations()
    counts = f"{len(rule_map.nodes)} rules, {len(rule_map.edges)} edges, {len(rule_map.crossed)} crossed out."
    said = (
        f"{counts} A rule contains another where for every choice of the other's parameters it has some of"
        " its own with which both take the same steps (exactly), or steps as close as is asked for (in the"
        " limit)."
    )
    text = "\n".join(textwrap.wrap(said, width))
    rules = ("\n".join(_rule(rule_map, known, name, width)) for name in names or rule_map.nodes)
    return "\n\n".join([text, *rules]) + "\n"


def _rule(rule_map: RuleMap, known: dict[Pair, Relation], name: str, width: int) -> Iterator[str]:
    node = rule_map.nodes[name]
    yield f"{name}: {whole_title(rule_map, name)}"
    if node.says:
        yield from _line("", node.says, 2, width)
    yield from _contains(rule_map, known, name, width)
    yield from _lacks(rule_map, known, name, width)
    within = {kind: [g for g in rule_map.nodes if _verdict(known, name, g) == kind] for kind in KINDS}
    if any(within.values()):
        yield from _line("", f"is contained in: {_by_kind(within)}", 2, width)
    unknown = [special for special in rule_map.nodes if _verdict(known, special, name) == "open"]
    if unknown:
        yield from _line("", f"open whether it contains: {', '.join(unknown)}", 2, width)


def _contains(rule_map: RuleMap, known: dict[Pair, Relation], name: str, width: int) -> Iterator[str]:
    claimed = [edge for edge in rule_map.edges if edge.general == name]
    derived = {kind: [s for s in rule_map.nodes if _derived(known, s, name) == kind] for kind in KINDS}
    if not claimed:
        yield "  contains nothing else on the map"
        return
    yield "  contains"
    for edge in claimed:
        only = " only" if edge.kind == "limit" and known[edge.special, name].closed else ""
        yield from _line(f"{edge.special:<25} {KINDS[edge.kind] + only:<18} ", edge.why, 4, width)
    if any(derived.values()):
        yield from _line("", f"and through these: {_by_kind(derived)}", 4, width)


def _lacks(rule_map: RuleMap, known: dict[Pair, Relation], name: str, width: int) -> Iterator[str]:
    claimed = [crossed for crossed in rule_map.crossed if crossed.general == name]
    follows: dict[str, list[str]] = {"even in the limit": [], "exactly": []}
    for special in rule_map.nodes:
        if _derived(known, special, name) == "not":
            follows["even in the limit" if known[special, name].closed else "exactly"].append(special)
    if claimed or any(follows.values()):
        yield "  does not contain"
    by_invariant: dict[tuple[str, bool], list[CrossedEdge]] = defaultdict(list)
    for crossed in claimed:
        by_invariant[crossed.invariant, crossed.closed].append(crossed)
    for (invariant, closed), several in by_invariant.items():
        limits = "" if closed else " (not exactly: limits may reach it)"
        yield from _line("", f"{invariant}{limits}; but", 4, width)
        for crossed in several:
            yield from _line(f"{crossed.special:<25} ", crossed.witness, 6, width)
    if any(follows.values()):
        yield from _line("", f"and so it follows: {_by_kind(follows, 'not ')}", 4, width)


def _verdict(known: dict[Pair, Relation], special: str, general: str) -> str:
    return known[special, general].verdict if special != general else "same"


def _derived(known: dict[Pair, Relation], special: str, general: str) -> str:
    """The verdict of two rules, empty where it was claimed."""
    return "" if special == general or not known[special, general].via else known[special, general].verdict


def _by_kind(names: dict[str, list[str]], negation: str = "") -> str:
    return "; ".join(
        f"{negation}{KINDS.get(kind, kind)} {', '.join(those)}" for kind, those in names.items() if those
    )


def _line(head: str, text: str, indent: int, width: int) -> list[str]:
    """A head and a text that hangs beside it; where that leaves it little room, below it."""
    first = " " * indent + head
    beside = head and len(first) <= width // 2
    more = " " * (len(first) if beside else indent + 2)
    return textwrap.wrap(
        text or " ", width, initial_indent=first, subsequent_indent=more, break_on_hyphens=False
    ) or [first.rstrip()]


def as_data(rule_map: RuleMap, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the map as plain data.

    Args:
        rule_map: The map.
        names: The rules to describe, with the edges that concern them; all where none is named.
    """
    shown = set(names or rule_map.nodes)

    def edge(one: Edge | CrossedEdge) -> dict[str, Any]:
        claims = [claim if isinstance(claim, str) else type(claim).__name__ for claim in one.claims]
        return {**attrs.asdict(one, filter=lambda field, _: field.name != "claims"), "claims": claims}

    return {
        "nodes": [attrs.asdict(node) for name, node in rule_map.nodes.items() if name in shown],
        "edges": [edge(e) for e in rule_map.edges if shown & {e.special, e.general}],
        "crossed": [edge(c) for c in rule_map.crossed if shown & {c.special, c.general}],
        "relations": [
            {"special": pair[0], "general": pair[1], **attrs.asdict(relation)}
            for pair, relation in rule_map.relations().items()
            if shown & set(pair)
        ],
    }
