"""The shipped map with what the installed plugins place on it, and checks of its claims."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import attrs

from metalearn_benchmarks.theory import shipped_map
from metalearn_core import UsageError, placements
from metalearn_core.testing.theory.map_parts import Claim, CrossedEdge, Edge
from metalearn_core.testing.theory.rule_map import RuleMap, resolve

NEEDS_TESTING = "what checks rules is not installed ({}); run pip install hypothesis pytest"


def installed_map() -> tuple[RuleMap, list[str]]:
    """Put together the map of all installed rules.

    A placement that fails leaves nothing on the map, and the others stay.

    Returns:
        The map, and a line for each placement that failed.
    """
    rule_map, problems = shipped_map(), []
    catalogue = placements()
    problems += [catalogue.clash(name) for name in catalogue.contested]
    for placement in catalogue.values():
        trial = RuleMap()
        trial.nodes |= rule_map.nodes
        trial.edges += rule_map.edges
        trial.crossed += rule_map.crossed
        try:
            with redirect_stdout(sys.stderr):  # what it prints
                placement.factory(trial)
            for contradiction in trial.contradictions():
                raise UsageError(f"it contradicts what is on the map: {contradiction}")
        except (Exception, SystemExit) as error:  # whatever it is, it is the plugin's
            known = isinstance(error, UsageError)
            reason = _in_one_line(error) if known else f"{type(error).__name__}: {_in_one_line(error)}"
            if isinstance(error, ImportError) and error.name == "hypothesis":
                reason = NEEDS_TESTING.format(reason)
            owner = f"{placement.distribution} (plugin {placement.plugin})"
            problems.append(f"placement {placement.name!r} of {owner}: {reason}")
        else:
            rule_map = trial
    return rule_map, problems


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def require_testing() -> None:
    """Raise UsageError where hypothesis is missing."""
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise UsageError(NEEDS_TESTING.format(error)) from error


@attrs.frozen
class Outcome:
    """The result of checking the claims of an edge.

    Args:
        edge: The edge.
        names: Names of its claims; none where it holds by definition.
        problem: How a claim failed, empty where all hold.
    """

    edge: Edge | CrossedEdge
    names: tuple[str, ...]
    problem: str = ""

    @property
    def line(self) -> str:
        """The result in one line."""
        limit = " in the limit" if isinstance(self.edge, Edge) and self.edge.kind == "limit" else ""
        sign = "contains" if isinstance(self.edge, Edge) else "does not contain"
        proofs = ", ".join(self.names) or "by definition"
        statement = f"{self.edge.general} {sign} {self.edge.special}{limit} ({proofs})"
        return (
            f"holds  {statement}"
            if not self.problem
            else f"FAILS  {statement}: {self.problem.splitlines()[0]}"
        )

    def as_row(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "special": self.edge.special,
            "general": self.edge.general,
            "crossed": isinstance(self.edge, CrossedEdge),
            "claims": list(self.names),
            "holds": not self.problem,
            "problem": self.problem,
        }


def edges_of(rule_map: RuleMap, names: Sequence[str]) -> list[Edge | CrossedEdge]:
    """Return the edges and crossed-out edges of some rules, or of all rules where none is named."""
    chosen = set(names or rule_map.nodes)
    edges: list[Edge | CrossedEdge] = [*rule_map.edges, *rule_map.crossed]
    return [edge for edge in edges if chosen & {edge.special, edge.general}]


def check_edges(edges: Sequence[Edge | CrossedEdge], examples: int) -> Iterator[Outcome]:
    """Check the claims of edges one after the other; a claim that several edges share is checked once.

    Args:
        edges: The edges.
        examples: How many examples are drawn for each claim.

    Yields:
        The outcome of each edge.
    """
    done: dict[int | str, str] = {}
    for edge in edges:
        problems = []
        for claim in edge.claims:
            key = claim if isinstance(claim, str) else id(claim)
            if key not in done:
                done[key] = _problem(claim, examples)
            problems.append(done[key])
        yield Outcome(edge, tuple(map(_name, edge.claims)), next(filter(None, problems), ""))


def _problem(claim: Claim | str, examples: int) -> str:
    """How a claim fails, empty where it holds."""
    try:
        with _settings():
            resolve(claim).check(examples=examples)
    except AssertionError as error:
        return str(error) or "AssertionError"
    except Exception as error:  # a claim that cannot be tried does not hold
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def _settings() -> Iterator[None]:
    """The same examples every time, however slow they are, and none kept in the folder that one is in."""
    import hypothesis

    hypothesis.settings.register_profile("before", parent=hypothesis.settings())
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile(
        "map", deadline=None, derandomize=True, database=None, suppress_health_check=slow
    )
    hypothesis.settings.load_profile("map")
    try:
        yield
    finally:
        hypothesis.settings.load_profile("before")


def _name(claim: Claim | str) -> str:
    address = claim if isinstance(claim, str) else str(getattr(claim, "address", ""))
    proof = getattr(claim, "parameterise", None) or getattr(claim, "invariant", None) or type(claim)
    return address.rpartition(":")[2] or str(getattr(proof, "__name__", proof))
