"""The map of what the shipped rules can express, and the proofs of its edges. Imports no torch.

`map.toml` holds the rules and the edges, `subsumptions`, `optimisers` and `approximations` their proofs.
`laws.toml` holds the laws, which make the crossed-out edges, and `laws` their proofs: an invariant, tried on
`members` of whole nodes, and `witnesses` that break it. `references` has the rules that no plugin ships.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from metalearn_core.testing.theory.map_parts import CrossedEdge, Edge, Node
from metalearn_core.testing.theory.rule_map import RuleMap


def shipped_map() -> RuleMap:
    """Return the map of the shipped rules."""
    facts, found = _read("map.toml"), RuleMap()
    for name, node in facts["node"].items():
        found.add(Node(name, **node))
    for edge in facts["edge"]:
        claims = tuple(_address(claim) for claim in edge.get("claims", ()))
        found.connect(Edge(**{**edge, "claims": claims}))
    for name, law in law_facts().items():
        for crossed in _crossed_edges(name, law):
            found.connect(crossed)
    return found


@cache
def law_facts() -> dict[str, Any]:
    """Return what `laws.toml` says of each law, by its name."""
    return dict(_read("laws.toml")["law"])


def claim_of(law: str, special: str) -> str:
    """Return the name of the claim that a special rule breaks a law."""
    return f"{law}_BROKEN_BY_{special.replace('-', '_').upper()}"


def _crossed_edges(name: str, law: dict[str, Any]) -> list[CrossedEdge]:
    """Each general rule of a law against each special one."""
    return [
        CrossedEdge(
            special, general, law["invariant"], witness, law.get("closed", True),
            (f"{__name__}.laws:{claim_of(name, special)}",),
        )
        for general in law["generals"]
        for special, witness in law["breaks"].items()
    ]  # fmt: skip


def _read(file: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__name__).joinpath(file).read_text(encoding="utf-8"))


def _address(claim: str) -> str:
    """The proof as `module:name`: it is imported when it is checked. Most are in `subsumptions`."""
    module, _, name = claim.rpartition(":")
    return f"{__name__}.{module or 'subsumptions'}:{name}"
