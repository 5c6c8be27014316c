"""Resolving a cell: its settings, its families and its options, with every default written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from metalearn_benchmarks.experiments.catalogue import Cell, Component
from metalearn_benchmarks.experiments.method import BACKPROPAGATION
from metalearn_core import (
    Clipping,
    Registered,
    Settings,
    TaskFamily,
    UsageError,
    base_learners,
    meta_gradients,
    rules,
    task_families,
    unknown,
)

OPTIONS_FROM_FAMILY = ("ways", "channels", "size", "features", "length")
"""Options of a base-learner that take the value of the family's attribute, unless they are given."""


def core_settings(cell: Cell) -> Settings:
    """Return the cell's settings as `metalearn_core.Settings`.

    Raises:
        UsageError: A setting is unknown or invalid. The message names it.
    """
    given = dict(cell.method.settings)
    known = {field.name for field in attrs.fields(Settings)}
    for key in given:
        if key not in known:
            raise UsageError(f"method {cell.name!r}: {unknown('setting', key, known)}")
    try:
        for key in {"inner_clip", "outer_clip"} & set(given):
            if not isinstance(given[key], dict):
                raise TypeError(f'{key} must be a table {{ by = "value", limit = 10.0 }}, got {given[key]!r}')
            given[key] = Clipping(**given[key])
        return Settings(**given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"settings of method {cell.name!r}: {str(error).splitlines()[0]}") from error


def data_checksums(families: Mapping[str, TaskFamily]) -> dict[str, str]:
    """Return the checksum of each family's data, for the families that have one."""
    found = {name: getattr(one, "checksum", None) for name, one in families.items()}
    return {name: value for name, value in found.items() if value is not None}


def make_family(component: Component) -> TaskFamily:
    """Make the family of that name with those options.

    Raises:
        UsageError: What is installed under the name makes no TaskFamily.
    """
    family = task_families()[component.name](**component.options)
    if not isinstance(family, TaskFamily):
        raise UsageError(f"expected a TaskFamily from {component.name!r}, got a {type(family).__name__}")
    return family


def learner_options(cell: Cell, family: TaskFamily) -> dict[str, Any]:
    """Return the options of the base-learner: the method's, over the experiment's, over the family's."""
    return {**_shared_options(cell, family), **cell.method.learner}


def _shared_options(cell: Cell, family: TaskFamily) -> dict[str, Any]:
    """Return the options of the base-learner that all methods of a setting share."""
    known = base_learners()[cell.learner.name].options()
    fitted = {
        name: getattr(family, name) for name in OPTIONS_FROM_FAMILY if name in known and hasattr(family, name)
    }
    if "ways" in fitted:  # a head has a place for every class of a test task, too
        fitted["ways"] = max(fitted["ways"], cell.test.get("ways", 0))
    return {**fitted, **cell.learner.options}


def resolve_cell(cell: Cell) -> dict[str, Any]:
    """Return the cell as its `experiment.toml` holds it.

    Every setting and option is written out, none is left to a default. The checksums of the data that the run
    will use are added.
    """
    plain = cell.as_toml()
    settings = attrs.asdict(core_settings(cell))
    plain["method"]["settings"] = {k: v for k, v in settings.items() if v is not None}
    entries = registered_entries(cell)
    if "rule" in entries:
        plain["method"]["options"] = {**_defaults(entries["rule"]), **plain["method"]["options"]}
    if "meta-gradient" in entries:
        given = plain["method"]["meta_gradient_options"]
        plain["method"]["meta_gradient_options"] = {**_defaults(entries["meta-gradient"]), **given}
    for part in (plain["family"], *plain["also_tested_on"]):
        part["options"] = {**_defaults(task_families()[part["name"]]), **part["options"]}
    families = {one.name: make_family(one) for one in (cell.family, *cell.also_tested_on)}
    shared = _shared_options(cell, families[cell.family.name])
    plain["learner"]["options"] = {**_defaults(entries["learner"]), **shared}
    data = data_checksums(families)
    return {**plain, "data": data} if data else plain


def registered_entries(cell: Cell) -> dict[str, Registered]:
    """Return what is installed and makes the cell's components, by what it is: `family`, `rule`, ..."""
    entries = {
        "family": task_families()[cell.family.name],
        "learner": base_learners()[cell.learner.name],
    }
    if cell.method.start != "pixels":
        entries["rule"] = rules()[cell.method.rule]
    if cell.method.meta_gradient != BACKPROPAGATION:
        entries["meta-gradient"] = meta_gradients()[cell.method.meta_gradient]
    return entries


def _defaults(entry: Registered) -> dict[str, Any]:
    """Return the default options of a factory, as far as TOML can hold them."""
    given = {name: parameter.default for name, parameter in entry.options().items()}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    return {k: v for k, v in plain.items() if isinstance(v, bool | int | float | str | list)}
