"""Is a distribution a plugin as it should be? By what it declares, then, on request, by importing it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from typing import Literal

import attrs

from metalearn_benchmarks.plugins.entry_points import GROUP, installed
from metalearn_core.errors import unknown


@attrs.frozen
class Finding:
    """One thing looked at: whether it is in order, and what to change where it is not."""

    check: str
    status: Literal["passed", "warning", "failed", "skipped"]
    message: str = ""

    @classmethod
    def of(
        cls, check: str, holds: bool, message: str, otherwise: Literal["warning", "failed"] = "failed"
    ) -> Finding:
        """Passed, or else failed, with the message; a warning for what is good to have and not needed."""
        return cls(check, "passed" if holds else otherwise, "" if holds else message)


def validate(name: str, imports: bool) -> list[Finding]:
    """Every finding about the distribution `name`; only with `imports` is any code of it run.

    Then all that has an entry point is imported, whatever else is wrong. Raises UsageError where no such
    distribution is installed.
    """
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # an empty name is no value for it
        raise unknown("distribution", name, {owner.metadata["Name"] for _, owner in installed()}) from None
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
        owners = {owner.metadata["Name"] for plugin, owner in installed() if plugin == point.name}
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
