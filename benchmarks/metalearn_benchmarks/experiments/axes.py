"""Axes: what an experiment varies, as its TOML says it, checked; the points of their grid, and their names.

`[axes]` is of every method, `[axes.NAME]` of the method NAME alone, over those of every method. An axis is
a list of values, and an empty one varies nothing. Imports no torch: what a rule's option may be is for the
rule to say.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from metalearn_core.errors import UsageError, unknown

Grid = dict[str, list[Any]]
"""Axis to its values."""

OF_SETTINGS = ("family", "shots", "ways", "family.NAME", "learner.NAME")
"""Axes of the tasks and the base-learner, which all methods share. NAME: an option."""
OF_METHODS = ("steps", "order", "options.NAME", "settings.NAME")
"""Axes of a method. `steps`: T, at training and at test; NAME: an option of its rule, or a setting."""
TABLES = ("family", "learner", "options", "settings")
SHARED = ("tasks", "validation_tasks", "task_seed")
"""Settings that all runs of a table share."""
LONGEST_NAME = 180
"""Characters of a folder's name: file systems allow 255, and leave room for what is appended."""


@attrs.frozen
class Axes:
    """What an experiment varies: of the tasks and the base-learner, of every method, and of one method."""

    of_settings: Grid = attrs.field(factory=dict)
    of_methods: Grid = attrs.field(factory=dict)
    of_one: dict[str, Grid] = attrs.field(factory=dict)

    @classmethod
    def read(cls, tables: Any, _: object = None) -> Axes:
        """From TOML's tables; ValueError for an axis that is unknown or has values that cannot be its own."""
        if not isinstance(tables, dict):
            raise TypeError(f"expected a table, got {tables!r}")
        found = cls()
        for key, value in flat(tables).items():
            if isinstance(value, dict):
                found.of_one[key] = {axis: _values(axis, v, f"{key}.{axis}") for axis, v in value.items()}
                shared = next((axis for axis in value if _is_of_settings(axis)), None)
                if shared is not None:
                    raise ValueError(
                        f"{key}.{shared}: methods are compared on the same tasks; put it in [axes]"
                    )
            else:
                of = found.of_settings if _is_of_settings(key) else found.of_methods
                of[key] = _values(key, value, key)
        return found

    def of(self, method: str) -> Grid:
        """The axes of a method: every method's, over them its own."""
        return {**self.of_methods, **self.of_one.get(method, {})}


def flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """`[axes]` with `options.hidden` and `"options.hidden"` said in the same way."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        if key in TABLES and isinstance(value, dict):
            found.update({f"{key}.{inner}": values for inner, values in value.items()})
        else:
            found[key] = flat(value) if isinstance(value, dict) else value
    return found


def _is_of_settings(axis: str) -> bool:
    return axis in ("shots", "ways") or axis.partition(".")[0] in ("family", "learner")


def _values(axis: str, values: Any, path: str) -> list[Any]:
    """The values of an axis, checked as far as they can be without the rule, the family and the learner."""
    _require_known(axis, path)
    if not isinstance(values, list):
        raise TypeError(f"{path}: an axis is a list of values, got {values!r}")
    for index, value in enumerate(values):
        wanted = _refusal(axis, value)
        if wanted:
            raise TypeError(f"{path}: expected {wanted}, got {value!r}")
        if value in values[:index]:
            raise ValueError(f"{path}: {value!r} is in it twice")
    return values


def _require_known(axis: str, path: str) -> None:
    table, _, name = axis.partition(".")
    if axis in ("seed", "seeds"):
        raise ValueError(f"{path}: seeds are the scale's; say how many under [scale.small] and the others")
    if table == "settings" and name in SHARED:
        raise ValueError(
            f"{path}: all runs of a table share it; make it another experiment's, with `extends`"
        )
    if table == "settings" and name in ("steps", "order"):
        raise ValueError(f"{path}: this axis is called {name!r}")
    if axis not in (*OF_SETTINGS, *OF_METHODS) and not (table in TABLES and name):
        raise unknown("axis", path, (*OF_SETTINGS, *OF_METHODS))


def _refusal(axis: str, value: Any) -> str | None:
    """What a value of an axis must be, where this one is not."""
    if axis == "order":
        return None if value in ("first", "second") else '"first" or "second"'
    least = {"steps": 0, "shots": 1, "ways": 1}.get(axis)
    if least is not None:
        return None if type(value) is int and value >= least else f"an integer >= {least}"
    if axis == "family":
        named = isinstance(value, dict) and isinstance(value.get("name"), str)
        whole = named and value.keys() <= {"name", "options"} and isinstance(value.get("options", {}), dict)
        return None if isinstance(value, str) or whole else "a name, or a table of a name and options"
    return None


def points(grid: Grid) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' values, the first axis outermost; one empty point of no axes."""
    varied = {axis: values for axis, values in grid.items() if values}
    for values in itertools.product(*varied.values()):
        yield dict(zip(varied, values, strict=True))


def folder_name(name: str, changed: Mapping[str, Any]) -> str:
    """`name,key=value,...`, fit for a folder: what no folder should be called is left out.

    A name that would be too long ends in a digest of all of it.
    """
    whole = ",".join([name, *(f"{key.partition('.')[2] or key}={_text(v)}" for key, v in changed.items())])
    fit = re.sub(r"[^\w+=.,\[\]-]", "", whole)
    if len(fit.encode()) <= LONGEST_NAME:
        return fit
    digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
    return f"{fit.encode()[: LONGEST_NAME - 16].decode(errors='ignore')}...{digest}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(f"{key}={_text(inner)}" for key, inner in value.items())
    return str(value)


def require_folder_name(kind: str, name: str) -> None:
    """UsageError for a name that a file system, or another part of the records, has its own use for."""
    if not re.fullmatch(r"[\w+=.,\[\]-]+", name) or name.strip(".") == "" or name == "report":
        raise UsageError(
            f"{kind} {name!r} names a folder: letters, digits and + = , . - _ [ ] only, and not 'report'"
        )
