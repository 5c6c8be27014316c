"""Axes: what an experiment varies, how it is checked, and how the points of the grid are named.

`[axes]` holds for every method. `[axes.NAME]` holds for the method NAME only, and takes precedence. An axis
is a list of values, and an empty list varies nothing. Imports no torch: only a rule itself can check the
values of its options.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from metalearn_benchmarks.experiments.limits import require_axis_length
from metalearn_core.errors import UsageError, unknown

Grid = dict[str, list[Any]]
"""Each axis with its values."""

SETTING_AXES = ("family", "shots", "ways", "task_seed", "family.NAME", "learner.NAME")
"""Axes of the tasks and the base-learner, which all methods share. NAME stands for an option. `task_seed` is
the stream that tasks are drawn from."""
METHOD_AXES = (
    "steps", "order", "meta_gradient", "options.NAME", "meta_gradient_options.NAME", "settings.NAME",
)  # fmt: skip
"""Axes of a method. `steps` is T, at training and at test. NAME is an option of its rule or of its outer
gradient, or a setting."""
AXIS_TABLES = ("family", "learner", "options", "meta_gradient_options", "settings")
"""Tables whose keys an axis may vary, as in `options.hidden`."""
SHARED_SETTINGS = ("tasks", "validation_tasks")
"""Settings that all rows of a table share, and that no axis may vary."""
MAX_NAME_LENGTH = 180
"""Bytes of a name that is made here. File systems allow 255; the rest is room for suffixes."""
LONGEST_FILE_NAME = 255
"""Bytes."""


@attrs.frozen
class Axes:
    """What an experiment varies.

    Args:
        setting_grid: Axes of the tasks and the base-learner.
        method_grid: Axes of every method.
        own_grids: Axes of single methods, by the method's name.
    """

    setting_grid: Grid = attrs.field(factory=dict)
    method_grid: Grid = attrs.field(factory=dict)
    own_grids: dict[str, Grid] = attrs.field(factory=dict)

    @classmethod
    def read(cls, tables: Any, _: object = None) -> Axes:
        """Parse the table `[axes]`; this is the structure hook of `Axes`.

        Args:
            tables: The table, with or without dotted keys.

        Raises:
            ValueError: An axis is unknown, or has a value that it cannot have.
            TypeError: A value has the wrong type.
        """
        if not isinstance(tables, dict):
            raise TypeError(f"expected a table, got {tables!r}")
        found = cls()
        for key, value in flatten_tables(tables).items():
            if isinstance(value, dict):
                found.own_grids[key] = {axis: _values(axis, v, f"{key}.{axis}") for axis, v in value.items()}
                shared = next((axis for axis in value if _is_of_settings(axis)), None)
                if shared is not None:
                    raise ValueError(
                        f"{key}.{shared}: methods are compared on the same tasks; put it in [axes]"
                    )
            else:
                grid = found.setting_grid if _is_of_settings(key) else found.method_grid
                grid[key] = _values(key, value, key)
        return found

    def grid_of(self, method: str) -> Grid:
        """Return the axes of a method: those of every method, overridden by its own."""
        return {**self.method_grid, **self.own_grids.get(method, {})}


def flatten_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return `[axes]` with `options = { hidden = ... }` written as `"options.hidden" = ...`."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        if key in AXIS_TABLES and isinstance(value, dict):
            found.update({f"{key}.{inner}": values for inner, values in value.items()})
        else:
            found[key] = flatten_tables(value) if isinstance(value, dict) else value
    return found


def _is_of_settings(axis: str) -> bool:
    return axis in ("shots", "ways", "task_seed") or axis.partition(".")[0] in ("family", "learner")


def _values(axis: str, values: Any, path: str) -> list[Any]:
    """Check the values of an axis, as far as possible without the rule, the family and the learner."""
    _require_known(axis, path)
    if not isinstance(values, list):
        raise TypeError(f"{path}: an axis is a list of values, got {values!r}")
    require_axis_length(path, values)
    for index, value in enumerate(values):
        wanted = _expected(axis, value)
        if wanted:
            raise TypeError(f"{path}: expected {wanted}, got {value!r}")
        if values.index(value) < index:
            raise ValueError(f"{path}: {value!r} is in it twice")
    return values


def _require_known(axis: str, path: str) -> None:
    table, _, name = axis.partition(".")
    if axis in ("seed", "seeds"):
        raise ValueError(f"{path}: seeds are the scale's; say how many under [scale.small] and the others")
    if axis == "settings.task_seed":
        raise ValueError(f"{path}: this axis is called 'task_seed'")
    if table == "settings" and name in SHARED_SETTINGS:
        raise ValueError(
            f"{path}: all runs of a table share it; make it another experiment's, with `extends`"
        )
    if table == "settings" and name in ("steps", "order"):
        raise ValueError(f"{path}: this axis is called {name!r}")
    if axis not in (*SETTING_AXES, *METHOD_AXES) and not (table in AXIS_TABLES and name):
        raise unknown("axis", path, (*SETTING_AXES, *METHOD_AXES))


def _expected(axis: str, value: Any) -> str | None:
    """Return what a value of the axis must be, or None where this value is valid."""
    if axis == "order":
        return None if value in ("first", "second") else '"first" or "second"'
    if axis == "meta_gradient":
        return None if isinstance(value, str) else "the name of an outer gradient"
    least = {"steps": 0, "shots": 1, "ways": 1, "task_seed": 0}.get(axis)
    if least is not None:
        return None if type(value) is int and value >= least else f"an integer >= {least}"
    if axis == "family":
        named = isinstance(value, dict) and isinstance(value.get("name"), str)
        whole = named and value.keys() <= {"name", "options"} and isinstance(value.get("options", {}), dict)
        return None if isinstance(value, str) or whole else "a name, or a table of a name and options"
    return None


def grid_points(grid: Grid) -> Iterator[dict[str, Any]]:
    """Yield every combination of the axes' values, the first axis outermost.

    A grid without axes has one point, which is empty.
    """
    varied = {axis: values for axis, values in grid.items() if values}
    for values in itertools.product(*varied.values()):
        yield dict(zip(varied, values, strict=True))


def folder_name(name: str, changed: Mapping[str, Any]) -> str:
    """Return `name,key=value,...` without the characters that a folder's name should not have.

    Args:
        name: The name of the method, rule or setting.
        changed: Axis or option to its value, for all that differs from the default.

    Returns:
        The name. Where it would be too long, its end is replaced by a digest of the whole.
    """
    whole = ",".join([name, *(f"{key.partition('.')[2] or key}={_text(v)}" for key, v in changed.items())])
    fit = re.sub(r"[^\w+=.,\[\]-]", "", whole)
    if len(fit.encode()) <= MAX_NAME_LENGTH:
        return fit
    digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
    return f"{fit.encode()[: MAX_NAME_LENGTH - 16].decode(errors='ignore')}...{digest}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(f"{key}={_text(inner)}" for key, inner in value.items())
    return str(value)


def require_folder_name(kind: str, name: str) -> None:
    """Check that a name can name a folder of records.

    Args:
        kind: What is named, for the message: `"experiment"`, `"setting"` or `"method"`.
        name: The name.

    Raises:
        UsageError: A file system has no room for the name, or it, or another part of the records, has its
            own use for it.
    """
    if not re.fullmatch(r"[\w+=.,\[\]-]+", name) or name.strip(".") == "" or name == "report":
        raise UsageError(
            f"{kind} {name!r} names a folder: letters, digits and + = , . - _ [ ] only, and not 'report'"
        )
    if (length := len(name.encode())) > LONGEST_FILE_NAME:
        raise UsageError(
            f"{kind} '{name:.40}...' names a folder, whose name has room for {LONGEST_FILE_NAME} bytes, and"
            f" it has {length}; use a shorter one"
        )
