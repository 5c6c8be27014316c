"""Checks of a distribution as a plugin: of what it declares, and on request of what it imports."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from typing import Literal

import attrs

from metalearn_benchmarks.plugins.entry_points import GROUP, installed_plugins
from metalearn_core.errors import unknown


@attrs.frozen
class Finding:
    """The result of one check.

    Args:
        check: What was checked.
        status: How it ended.
        message: What to change, empty where it passed.
    """

    check: str
    status: Literal["passed", "warning", "failed", "skipped"]
    message: str = ""

    @classmethod
    def of(
        cls, check: str, holds: bool, message: str, otherwise: Literal["warning", "failed"] = "failed"
    ) -> Finding:
        """Return a finding that passed, or else one with the message and the status `otherwise`."""
        return cls(check, "passed" if holds else otherwise, "" if holds else message)


def validate(name: str, imports: bool) -> list[Finding]:
    """Check a distribution.

    Args:
        name: Name of the distribution.
        imports: Also import all that has an entry point, which runs its code.

    Raises:
        UsageError: No such distribution is installed.
    """
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # an empty name is no value for it
        raise unknown(
            "distribution", name, {owner.metadata["Name"] for _, owner in installed_plugins()}
        ) from None
    findings = list(_declared(distribution))
    if imports and distribution.entry_points.select(group=GROUP):
        findings += _imported(distribution)
    else:
        reason = "there is no entry point to import" if imports else "say --imports to run its code"
        findings.append(Finding("imports", "skipped", reason))
    return findings


def _declared(distribution: importlib.metadata.Distribution) -> Iterator[Finding]:
    name = distribution.metadata["Name"]
    points = distribution.entry_points.select(group=GROUP)
    yield Finding.of(
        "entry points",
        bool(points),
        f'none: say [project.entry-points.{GROUP}] NAME = "MODULE" in pyproject.toml',
    )
    for point in points:
        yield Finding.of(
            f"module of {point.name}",
            _is_there(point.module),
            f"{point.module} is not installed: list it in pyproject.toml (py-modules or packages)",
        )
        owners = {owner.metadata["Name"] for plugin, owner in installed_plugins() if plugin == point.name}
        others = ", ".join(sorted(owners - {name}))
        yield Finding.of(
            f"name {point.name}", not others, f"{others} has a plugin of this name too: rename one"
        )
    requires = [re.split(r"[^\w.-]", text, maxsplit=1)[0].lower() for text in distribution.requires or ()]
    yield Finding.of(
        "requires metalearn-core", "metalearn-core" in requires, 'add "metalearn-core" to its dependencies'
    )
    for field, key in (("Summary", "description"), ("Requires-Python", "requires-python")):
        held = field in distribution.metadata
        yield Finding.of(key, held, f"say {key} in pyproject.toml, for those who find it", "warning")
    licence = bool({"License-Expression", "License"} & set(distribution.metadata))
    advice = 'say license = "MIT", or another, in pyproject.toml, for those who use it'
    yield Finding.of("licence", licence, advice, "warning")


def _is_there(module: str) -> bool:
    """Found without running it: the parents of a dotted name would be imported, so its top is looked for."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _imported(distribution: importlib.metadata.Distribution) -> Iterator[Finding]:
    from metalearn_core import Registry

    name = distribution.metadata["Name"]
    # with the others, since two plugins may claim the same name
    registry = Registry()
    for report in registry.reports:
        if report.distribution == name:
            yield Finding.of(f"imports {report.name}", report.error is None, report.error or "")
    for catalogue in registry.catalogues.values():
        for entry in catalogue.values():
            if entry.distribution == name:
                text = (entry.factory.__doc__ or "").strip()
                advice = "say what it is, with its equation"
                yield Finding.of(f"docstring of {entry.kind} {entry.name}", bool(text), advice, "warning")
