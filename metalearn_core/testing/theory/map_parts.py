"""What a map of rules is made of: rules, edges with their proofs, and what is known of a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import attrs

Kind = Literal["exact", "limit"]

Verdict = Literal["same", "exact", "limit", "not", "open"]


class Claim(Protocol):
    """What can be checked on drawn examples: a `Subsumption` or a `Separation`."""

    def check(self, *, examples: int | None = None) -> None:
        """AssertionError with a counterexample."""


@attrs.frozen
class Node:
    """A rule with the options and the range of parameters that it is meant with.

    Args:
        rule: its registered name, where it has one.
        options: of that rule, those that make it this node.
        varies: the options that a claim about the node must give.
        free: the other options, each with a list of the values that it may have, or with words for them.
    """

    name: str
    title: str
    group: str = "others"
    says: str = ""
    rule: str = ""
    options: Mapping[str, Any] = attrs.field(factory=dict)
    varies: Sequence[str] = ()
    free: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Edge:
    """`general` contains `special`; `claims` are its proofs, as objects or as `module:name`."""

    special: str
    general: str
    kind: Kind
    why: str = ""
    claims: tuple[Claim | str, ...] = ()


@attrs.frozen
class CrossedEdge:
    """`general` does not contain `special`: an invariant of `general` that a witness of `special` breaks.

    `closed`: the invariant survives limits, so that there is no edge in the limit either.
    """

    special: str
    general: str
    invariant: str
    witness: str
    closed: bool = True
    claims: tuple[Claim | str, ...] = ()


@attrs.frozen
class Relation:
    """What is known of two nodes.

    `verdict` says whether the general one contains the special one: the "same" node, "exact", in the
    "limit", "not", or "open". `via` are the nodes that it follows through, empty where it was claimed.
    `closed`: of a "not", that it holds for limits too; of a "limit", that it is known not to be exact.
    """

    verdict: Verdict
    via: tuple[str, ...] = ()
    closed: bool = False
