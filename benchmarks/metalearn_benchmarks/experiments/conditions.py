"""Conditions, `[[where]]` in an experiment's TOML: what holds in some of its settings alone.

A condition names values of `family`, `ways` or `shots`. In settings that have them, what it says of methods
and scales is over what the experiment says of all; of several that meet, a later one is over an earlier one.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from metalearn_benchmarks.experiments.method import Component, Method, Scale
from metalearn_core.errors import UsageError

ON = ("family", "ways", "shots")


@attrs.frozen
class MethodChange:
    """What is another of a method, key by key."""

    options: dict[str, Any] = attrs.field(factory=dict)
    settings: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class ScaleChange:
    """What is another of a scale, key by key."""

    settings: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Condition:
    """One `[[where]]`: on which settings, and what holds there.

    Args:
        family, ways, shots: the values it is for; an empty list asks for nothing.
    """

    family: list[str] = attrs.field(factory=list)
    ways: list[int] = attrs.field(factory=list)
    shots: list[int] = attrs.field(factory=list)
    method: dict[str, MethodChange] = attrs.field(factory=dict)
    scale: dict[str, ScaleChange] = attrs.field(factory=dict)

    def meets(self, family: Component) -> bool:
        """Whether a setting's family has one of the values of each kind."""
        own = _values_of(family)
        return all(own[key] in asked for key in ON if (asked := getattr(self, key)))

    def __str__(self) -> str:
        asked = {key: getattr(self, key) for key in ON if getattr(self, key)}
        return " and ".join(f"{key} = {' or '.join(map(str, values))}" for key, values in asked.items())


def require_sensible(conditions: Sequence[Condition]) -> None:
    """UsageError for a condition on nothing, and for one that says nothing."""
    for index, condition in enumerate(conditions):
        if not str(condition):
            raise UsageError(f"key 'where.{index}': it is for no family, ways or shots; name some of them")
        if not condition.method and not condition.scale:
            raise UsageError(f"key 'where.{index}': it changes no method and no scale; leave it out")


def require_met(conditions: Sequence[Condition], families: Iterable[Component]) -> None:
    """UsageError for a condition that no setting meets: it would never be noticed."""
    settings = list(families)
    for condition in conditions:
        if not any(condition.meets(family) for family in settings):
            there = sorted({f"{family.name}, {_told(family)}" for family in settings})
            raise UsageError(f"[[where]] {condition}: no setting is like that; there are {'; '.join(there)}")


def apply_conditions(
    family: Component, conditions: Sequence[Condition], methods: Mapping[str, Method], scale: str, size: Scale
) -> tuple[dict[str, Method], Scale]:
    """The methods and the size of a scale, as they are in the setting of a family."""
    found = dict(methods)
    for condition in conditions:
        if not condition.meets(family):
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


def _told(family: Component) -> str:
    own = _values_of(family)
    return ", ".join(f"{key} = {own[key]}" for key in ("ways", "shots") if own[key] is not None)
