"""Conditions, `[[where]]` in an experiment's TOML: changes that hold in some of its settings only.

A condition names values of `family`, `ways` or `shots`. In the settings that have them, its changes to
methods and scales take precedence over what the experiment says. Where several conditions match, later ones
take precedence over earlier ones. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from metalearn_benchmarks.experiments.method import Component, Method, Scale
from metalearn_core.errors import UsageError

CONDITION_KEYS = ("family", "ways", "shots")
"""What a condition can select settings by."""


@attrs.frozen
class MethodChange:
    """Changes to a method: options and settings, key by key."""

    options: dict[str, Any] = attrs.field(factory=dict)
    settings: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class ScaleChange:
    """Changes to a scale: settings, key by key."""

    settings: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Condition:
    """One `[[where]]`: which settings it selects, and what it changes there.

    Args:
        family: Names of families. An empty list selects all, here and below.
        ways: Numbers of ways.
        shots: Numbers of shots.
        method: Changes by the method's name.
        scale: Changes by the scale's name.
    """

    family: list[str] = attrs.field(factory=list)
    ways: list[int] = attrs.field(factory=list)
    shots: list[int] = attrs.field(factory=list)
    method: dict[str, MethodChange] = attrs.field(factory=dict)
    scale: dict[str, ScaleChange] = attrs.field(factory=dict)

    def matches(self, family: Component) -> bool:
        """Return whether a setting's family has one of the values of each kind."""
        own = _values_of(family)
        return all(own[key] in asked for key in CONDITION_KEYS if (asked := getattr(self, key)))

    def __str__(self) -> str:
        asked = {key: getattr(self, key) for key in CONDITION_KEYS if getattr(self, key)}
        return " and ".join(f"{key} = {' or '.join(map(str, values))}" for key, values in asked.items())


def require_well_formed(conditions: Sequence[Condition]) -> None:
    """Raise UsageError for a condition that selects nothing by name, or changes nothing."""
    for index, condition in enumerate(conditions):
        if not str(condition):
            raise UsageError(f"key 'where.{index}': it is for no family, ways or shots; name some of them")
        if not condition.method and not condition.scale:
            raise UsageError(f"key 'where.{index}': it changes no method and no scale; leave it out")


def require_matching_settings(conditions: Sequence[Condition], families: Iterable[Component]) -> None:
    """Raise UsageError for a condition that no setting matches, since nobody would notice it."""
    settings = list(families)
    for condition in conditions:
        if not any(condition.matches(family) for family in settings):
            there = sorted({f"{family.name}, {_describe(family)}" for family in settings})
            raise UsageError(f"[[where]] {condition}: no setting is like that; there are {'; '.join(there)}")


def apply_conditions(
    family: Component, conditions: Sequence[Condition], methods: Mapping[str, Method], scale: str, size: Scale
) -> tuple[dict[str, Method], Scale]:
    """Apply the conditions that match a setting.

    Args:
        family: The setting's family.
        conditions: All conditions of the experiment, in their order.
        methods: The known methods, by name.
        scale: Name of the scale.
        size: The scale itself.

    Returns:
        The methods and the scale as they are in this setting.
    """
    found = dict(methods)
    for condition in conditions:
        if not condition.matches(family):
            continue
        for name, change in condition.method.items():
            method = found[name]
            found[name] = attrs.evolve(
                method,
                options={**method.options, **change.options},
                settings={**method.settings, **change.settings},
            )
        if scale in condition.scale:
            size = attrs.evolve(size, settings={**size.settings, **condition.scale[scale].settings})
    return found, size


def _values_of(family: Component) -> dict[str, Any]:
    options = family.options
    shots = options.get("shots", options.get("support"))
    return {"family": family.name, "ways": options.get("ways"), "shots": shots}


def _describe(family: Component) -> str:
    own = _values_of(family)
    return ", ".join(f"{key} = {own[key]}" for key in ("ways", "shots") if own[key] is not None)
