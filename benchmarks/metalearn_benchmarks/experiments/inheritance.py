"""Inheritance between experiments and between methods: `extends` in TOML.

Tables are merged key by key, at any depth. Everything else is replaced as a whole: numbers, strings and
lists, so axes, too. Where a table names another family, base-learner, rule or outer gradient, the inherited
options are dropped, because they were meant for something else. Three keys are not inherited: what an
experiment reproduces, what is run of it by default, and the title of the method that another extends. A
method that extends its own name is the shipped method with changes, and keeps its title.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.experiments.axes import flatten_tables
from metalearn_benchmarks.experiments.limits import MAX_EXTENDS, require_count
from metalearn_core.errors import UsageError, unknown

Tables = dict[str, Any]
"""The tables of a TOML file."""


@attrs.frozen(eq=False)
class Source:
    """An experiment or a method as it is written in TOML.

    Args:
        name: Its name.
        where: The file, for messages.
        data: Its tables.
        folder: The file's folder, in which `extends` is looked up. None for a shipped one.
    """

    name: str
    where: str
    data: Tables
    folder: Path | None = None

    @property
    def identity(self) -> str:
        """What tells it apart from other sources of a chain."""
        return self.name if self.folder is None else str(Path(self.where).resolve())

    @property
    def checkable(self) -> Tables:
        """The tables without `extends` of its methods, which are no part of a resolved method."""
        own = self.data.get("method")
        if not isinstance(own, dict):
            return self.data
        return {**self.data, "method": {name: _without(table, "extends") for name, table in own.items()}}


def resolve_inheritance(
    source: Source, find: Callable[[str, Path], Source], methods: Mapping[str, Tables]
) -> Tables:
    """Merge an experiment with all experiments that it extends, and its methods with theirs.

    Args:
        source: The experiment.
        find: Returns the source that `extends` names, seen from a folder.
        methods: The tables of the shipped methods, by name.

    Returns:
        The merged tables.

    Raises:
        UsageError: A chain of `extends` comes back to itself, or a method extends an unknown one.
    """
    chain, tables = [source], dict(source.data)
    tables["axes"] = flatten_tables(tables.get("axes", {}))
    while parent := chain[-1].data.get("extends"):
        require_count(len(chain), MAX_EXTENDS, f"{source.where}: files that extend each other", "name fewer")
        above = find(parent, chain[-1].folder or Path())
        chain.append(above)
        if above.identity in (one.identity for one in chain[:-1]):
            raise UsageError(f"{source.where}: extends itself: {' -> '.join(one.where for one in chain)}")
        under = {**above.data, "axes": flatten_tables(above.data.get("axes", {}))}
        tables = merge_tables(tables, _without(_without(under, "reproduces"), "default"))
    own = tables.get("method", {})
    tables["method"] = {name: _resolve_method(name, own, methods, source.where) for name in own}
    return tables


def merge_tables(over: Tables, under: Tables) -> Tables:
    """Merge two tables.

    Args:
        over: The table that takes precedence.
        under: The table that it extends.

    Returns:
        A new table.
    """
    if any(key in over and over[key] != under.get(key) for key in ("name", "rule")):
        under = _without(under, "options")
    if "meta_gradient" in over and over["meta_gradient"] != under.get("meta_gradient"):
        under = _without(under, "meta_gradient_options")
    both = dict(under)
    for key, value in over.items():
        below = under.get(key)
        both[key] = (
            merge_tables(value, below) if isinstance(value, dict) and isinstance(below, dict) else value
        )
    return both


def _resolve_method(
    name: str, own: Mapping[str, Tables], shipped: Mapping[str, Tables], where: str,
    chain: tuple[str, ...] = (),
) -> Tables:  # fmt: skip
    """Merge a method's table with that of the method that it extends."""
    known = {**shipped, **own}
    table = known[name]
    parent = table.get("extends")
    if name in own and name in shipped:
        return _change_shipped(name, table, shipped[name], where)
    if parent is None:
        return table
    key = f"{where}: key 'method.{name}.extends'"
    if not isinstance(parent, str):
        raise UsageError(f"{key}: expected str, got {parent!r}")
    if parent not in known:
        raise UsageError(f"{key}: {unknown('method', parent, known)}")
    require_count(len(chain), MAX_EXTENDS, f"{key}: methods that extend each other", "name fewer")
    if parent in (*chain, name):
        raise UsageError(f"{key}: it extends itself: {' -> '.join((*chain, name, parent))}")
    above = _without(_resolve_method(parent, own, shipped, where, (*chain, name)), "title")
    return merge_tables(_without(table, "extends"), above)


def _change_shipped(name: str, table: Tables, shipped: Tables, where: str) -> Tables:
    """Merge a shipped method with an experiment's changes, which may not alter what its name means."""
    if table.get("extends") != name:
        raise UsageError(
            f"{where}: method {name!r} is a shipped one; give the experiment's own another name, or change"
            f" it with extends = {name!r}"
        )
    for key in ("title", "start", "adapts", "rule", "meta_gradient", "protocol"):
        if key in table:
            raise UsageError(
                f"{where}: key 'method.{name}.{key}': {name!r} would be another method under the same name;"
                " give it a name of its own"
            )
    return merge_tables(_without(table, "extends"), shipped)


def _without(table: Any, key: str) -> Any:
    return {k: v for k, v in table.items() if k != key} if isinstance(table, dict) else table
