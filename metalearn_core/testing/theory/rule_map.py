"""The map of what rules can express: nodes are rules, edges are claims with their proofs. Imports no torch.

What follows from the claims is worked out: where a contains b and b contains c, a contains c; where c
is contained in b but not in a, neither is b.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import attrs

from metalearn_core.errors import UsageError, unknown
from metalearn_core.testing.theory.map_parts import Claim, CrossedEdge, Edge, Kind, Node, Relation


class RuleMap:
    """Rules, and what is known of which contains which."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.crossed: list[CrossedEdge] = []

    def add(self, node: Node) -> Node:
        """A new node. Raises UsageError where the name is taken by another."""
        if self.nodes.setdefault(node.name, node) != node:
            raise UsageError(f"map: there is another rule named {node.name!r}; choose another name")
        return node

    def connect(self, edge: Edge | CrossedEdge) -> None:
        """A new edge between nodes that are there."""
        for name in (edge.special, edge.general):
            if name not in self.nodes:
                raise unknown("rule on the map", name, self.nodes)
        if isinstance(edge, Edge):
            self.edges.append(edge)
        else:
            self.crossed.append(edge)

    def place(
        self,
        name: str,
        *,
        contains: str,
        special: str | Callable[..., Any],
        general: str | Callable[..., Any],
        parameterise: Callable[..., Mapping[str, Any]],
        title: str = "",
        why: str = "",
        **claim: Any,
    ) -> Edge:
        """Put a rule above one that is on the map; the arguments are those of `assert_subsumes`.

        Returns the edge, whose claim can be checked; `metalearn map --check` does so as well. Raises
        UsageError where `special`, or `general` under a name that is taken, is not what the node stands for.
        """
        from metalearn_core.testing.arguments import require_known
        from metalearn_core.testing.theory.subsumption import Subsumption

        if contains not in self.nodes:
            raise unknown("rule on the map", contains, self.nodes)
        require_known(claim, [field.name for field in attrs.fields(Subsumption)])
        subsumption = Subsumption(general, special, parameterise, **claim)
        if isinstance(special, str):  # of one that is made here nothing is known
            _require_node(self.nodes[contains], "special", special, subsumption.special_options)
            for option in self.nodes[contains].varies:
                if option not in subsumption.special_options:
                    raise UsageError(
                        f"map: {contains!r} stands for any {option}: special_options must have it"
                    )
        if name not in self.nodes:
            self.add(Node(name, title or name))
        elif self.nodes[name].rule:
            _require_node(self.nodes[name], "general", general, subsumption.general_options)
        edge = Edge(contains, name, "limit" if subsumption.gap else "exact", why, (subsumption,))
        self.connect(edge)
        return edge

    def relation(self, special: str, general: str) -> Relation:
        """What is known, or follows, of whether `general` contains `special`."""
        for name in (special, general):
            if name not in self.nodes:
                raise unknown("rule on the map", name, self.nodes)
        return Relation("same") if special == general else self.relations()[special, general]

    def relations(self) -> dict[tuple[str, str], Relation]:
        """What is known of every two nodes, as (special, general)."""
        contained = self.contained()
        excluded, found = self._excluded(contained), {}
        for pair in itertools.permutations(self.nodes, 2):
            kind, via = contained.get(pair, (None, ()))
            closed, reason = excluded.get(pair, (None, ()))
            if kind is not None:
                found[pair] = Relation(kind, via, closed is not None)
            else:
                found[pair] = Relation("open") if closed is None else Relation("not", reason, closed)
        return found

    def contained(self) -> dict[tuple[str, str], tuple[Kind, tuple[str, ...]]]:
        """Every pair (special, general) that is contained, and through which nodes."""
        found: dict[tuple[str, str], tuple[Kind, tuple[str, ...]]] = {}
        for edge in sorted(self.edges, key=lambda e: e.kind, reverse=True):
            found[edge.special, edge.general] = edge.kind, ()
        changed = True
        while changed:
            changed = False
            for (a, b), (first, through) in list(found.items()):
                for (b2, c), (second, onward) in list(found.items()):
                    kind: Kind = "exact" if (first, second) == ("exact", "exact") else "limit"
                    if b != b2 or a == c or found.get((a, c), ("",))[0] in ("exact", kind):
                        continue
                    found[a, c] = kind, (*through, b, *onward)
                    changed = True
        return found

    def excluded(self) -> dict[tuple[str, str], tuple[bool, tuple[str, ...]]]:
        """Every pair (special, general) that is not contained: closed or not, and through which claim."""
        return self._excluded(self.contained())

    def _excluded(self, contained: Contained) -> dict[tuple[str, str], tuple[bool, tuple[str, ...]]]:
        found: dict[tuple[str, str], tuple[bool, tuple[str, ...]]] = {}
        for crossed in self.crossed:
            for special, up in [(crossed.special, "exact"), *_above(crossed.special, contained)]:
                for general, down in [(crossed.general, "exact"), *_below(crossed.general, contained)]:
                    exact = (up, down) == ("exact", "exact")
                    if not (crossed.closed or exact):
                        continue
                    direct = (special, general) == (crossed.special, crossed.general)
                    via = () if direct else (crossed.special, crossed.general)
                    known = found.get((special, general))
                    if known is None or (crossed.closed, direct) > (known[0], not known[1]):
                        found[special, general] = crossed.closed, via
        return found

    def contradictions(self) -> Iterator[str]:
        """Pairs that the claims both connect and separate, in words."""
        contained = self.contained()
        excluded = self._excluded(contained)
        for (special, general), (kind, via) in contained.items():
            closed, reason = excluded.get((special, general), (None, ()))
            if closed or (closed is not None and kind == "exact"):
                yield f"{general} contains {special} ({kind}, via {via}) and does not (via {reason})"


def _require_node(node: Node, side: str, rule: object, options: Mapping[str, Any]) -> None:
    """UsageError unless the rule with these options is what the node stands for."""
    if node.rule and rule != node.rule:
        said = repr(rule) if isinstance(rule, str) else getattr(rule, "__name__", type(rule).__name__)
        raise UsageError(
            f"map: {node.name!r} stands for options of the rule {node.rule!r}, {side} is {said};"
            " choose another name"
        )
    if not node.options and not node.free:
        return
    from metalearn_core.registry import rules

    defaults = {name: option.default for name, option in rules()[node.rule].options().items()}
    listed = {name: values for name, values in node.free.items() if isinstance(values, list)}
    for name, value in {**node.options, **listed}.items():
        allowed = value if name in listed else [value]
        # an option that the rule passes on is neutral where it is not given
        given = options.get(name, defaults.get(name, allowed[0]))
        given = list(given) if isinstance(given, tuple) else given
        if name in listed and not isinstance(given, str | list):  # a strategy, as far as one sees
            continue
        if given not in allowed:
            said = " or ".join(map(repr, allowed))
            raise UsageError(f"map: {node.name!r} stands for {name} = {said}, {side}_options has {given!r}")


Contained = Mapping[tuple[str, str], tuple[Kind, tuple[str, ...]]]


def _above(name: str, contained: Contained) -> Iterator[tuple[str, Kind]]:
    return ((general, kind) for (special, general), (kind, _) in contained.items() if special == name)


def _below(name: str, contained: Contained) -> Iterator[tuple[str, Kind]]:
    return ((special, kind) for (special, general), (kind, _) in contained.items() if general == name)


def resolve(claim: Claim | str) -> Any:
    """The claim that `module:name` stands for, which then knows its address."""
    if not isinstance(claim, str):
        return claim
    module, name = claim.split(":")
    return attrs.evolve(getattr(import_module(module), name), address=claim)
