"""What an experiment inherits from another: tables key by key, everything else as a whole.

A number, a string or a list (so an axis, too) takes the place of the inherited one; a table adds to it, at
any depth. Where a table names another thing (`name` of a family or a base-learner, `rule` of a method), the
inherited `options` are dropped: they were meant for something else. What an experiment reproduces, and the
title of a method that another extends, is not inherited. A method that extends its own name is the shipped
one, changed; it keeps its title.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.experiments.axes import flat
from metalearn_core.errors import UsageError, unknown

Tables = dict[str, Any]


@attrs.frozen(eq=False)
class Source:
    """An experiment or a method as it is written: its name, where it stands, and its tables.

    `folder`: of a file; what it extends is looked for there.
    """

    name: str
    where: str
    data: Tables
    folder: Path | None = None

    @property
    def identity(self) -> str:
        """Tells it from others in a chain."""
        return self.name if self.folder is None else str(Path(self.where).resolve())

    @property
    def checkable(self) -> Tables:
        """The tables without what methods extend, which is resolved before a method is one."""
        own = self.data.get("method")
        if not isinstance(own, dict):
            return self.data
        return {**self.data, "method": {name: _without(table, "extends") for name, table in own.items()}}


def inherited(source: Source, find: Callable[[str, Path], Source], methods: Mapping[str, Tables]) -> Tables:
    """The tables of an experiment over those of all that it extends, and of its methods over theirs.

    Args:
        find: what `extends` names, seen from a folder.
        methods: the shipped ones, by name.

    Raises:
        UsageError: for a chain that comes back to itself, and for a method that extends none.
    """
    chain, tables = [source], dict(source.data)
    tables["axes"] = flat(tables.get("axes", {}))
    while parent := chain[-1].data.get("extends"):
        above = find(parent, chain[-1].folder or Path())
        chain.append(above)
        if above.identity in (one.identity for one in chain[:-1]):
            raise UsageError(f"{source.where}: extends itself: {' -> '.join(one.where for one in chain)}")
        under = {**above.data, "axes": flat(above.data.get("axes", {}))}
        tables = extended(tables, _without(under, "reproduces"))
    own = tables.get("method", {})
    tables["method"] = {name: _method(name, own, methods, source.where) for name in own}
    return tables


def extended(over: Tables, under: Tables) -> Tables:
    """Tables over those of the one that they extend."""
    if any(key in over and over[key] != under.get(key) for key in ("name", "rule")):
        under = _without(under, "options")
    both = dict(under)
    for key, value in over.items():
        below = under.get(key)
        both[key] = extended(value, below) if isinstance(value, dict) and isinstance(below, dict) else value
    return both


def _method(
    name: str, own: Mapping[str, Tables], shipped: Mapping[str, Tables], where: str,
    chain: tuple[str, ...] = (),
) -> Tables:  # fmt: skip
    """A method's tables over those of the method that it extends."""
    known = {**shipped, **own}
    table = known[name]
    parent = table.get("extends")
    if name in own and name in shipped:
        return _changed(name, table, shipped[name], where)
    if parent is None:
        return table
    key = f"{where}: key 'method.{name}.extends'"
    if not isinstance(parent, str):
        raise UsageError(f"{key}: expected str, got {parent!r}")
    if parent not in known:
        raise UsageError(f"{key}: {unknown('method', parent, known)}")
    if parent in (*chain, name):
        raise UsageError(f"{key}: it extends itself: {' -> '.join((*chain, name, parent))}")
    above = _without(_method(parent, own, shipped, where, (*chain, name)), "title")
    return extended(_without(table, "extends"), above)


def _changed(name: str, table: Tables, shipped: Tables, where: str) -> Tables:
    """A shipped method with other numbers: it must stay what its name says."""
    if table.get("extends") != name:
        raise UsageError(
            f"{where}: method {name!r} is a shipped one; give the experiment's own another name, or change"
            f" it with extends = {name!r}"
        )
    for key in ("title", "start", "adapts", "rule", "protocol"):
        if key in table:
            raise UsageError(
                f"{where}: key 'method.{name}.{key}': {name!r} would be another method under the same name;"
                " give it a name of its own"
            )
    return extended(_without(table, "extends"), shipped)


def _without(table: Any, key: str) -> Any:
    return {k: v for k, v in table.items() if k != key} if isinstance(table, dict) else table
