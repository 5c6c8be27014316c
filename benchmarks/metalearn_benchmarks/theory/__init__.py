"""The map of what the shipped rules can express, and the proofs of its edges. Imports no torch.

`map.toml` holds the rules and the edges, `subsumptions` the proofs of the edges, `separations` those of the
crossed-out edges. A proof names a function of `parameterisations` or `invariants`, and `references` has the
rules that no plugin ships.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

from metalearn_core.testing.theory.map_parts import CrossedEdge, Edge, Node
from metalearn_core.testing.theory.rule_map import RuleMap


def shipped_map() -> RuleMap:
    """Return the map of the shipped rules."""
    facts = tomllib.loads(resources.files(__name__).joinpath("map.toml").read_text(encoding="utf-8"))
    found = RuleMap()
    for name, node in facts["node"].items():
        found.add(Node(name, **node))
    for edge in facts["edge"]:
        found.connect(Edge(**_with_addresses(edge, "subsumptions")))
    for crossed in facts["crossed"]:
        found.connect(CrossedEdge(**_with_addresses(crossed, "separations")))
    return found


def _with_addresses(edge: dict[str, Any], module: str) -> dict[str, Any]:
    """The edge with the names of its proofs as `module:name`: they are imported when they are checked."""
    return {**edge, "claims": tuple(f"{__name__}.{module}:{name}" for name in edge.get("claims", ()))}
