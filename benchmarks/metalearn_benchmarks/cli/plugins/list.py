"""`metalearn plugins list`: list the plugins, and what is wrong with them."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections import defaultdict
from typing import Any

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.exit_codes import EXIT_FAILED
from metalearn_benchmarks.host.terminal import console, echo, print_json
from metalearn_benchmarks.plugins.entry_points import LOAD_PLUGINS


@click.command("list", epilog=examples("metalearn plugins list"))
@click.option("--all", "everything", is_flag=True, help="Those too that METALEARN_LOAD_PLUGINS leaves out.")
@JSON
@click.pass_context
def list_command(context: click.Context, everything: bool, as_json: bool) -> None:
    """Every plugin, what it brings, and what is wrong with it; exit code 1 if anything is."""
    from metalearn_core import default_registry

    registry = default_registry()
    reports = [report for report in registry.reports if everything or not report.left_out]
    if as_json:
        print_json([_row(report) for report in reports])
    else:
        for report in reports:
            console().print(_entry(report))
    away = sum(report.left_out for report in registry.reports)
    if away and not everything:
        by = "--no-plugins" if context.find_root().params.get("no_plugins") else LOAD_PLUGINS
        echo(f"{away} left out by {by}; --all shows them", err=True)
    faulty = [report for report in registry.reports if report.error]
    for report in faulty:
        echo(visible(_remedy(report)), err=True)
    if faulty:
        sys.exit(EXIT_FAILED)


def _entry(report: Any) -> Any:
    """A plugin with its distribution, and what it brings; where it lies is long, `show` and --json say it."""
    from metalearn_benchmarks.cli.support.entries import NamedEntry

    row, kinds = _row(report), defaultdict[str, list[str]](list)
    for entry in _brought(report):
        kinds[entry.kind].append(entry.name)
    brings = "; ".join(f"{_plural(kind, names)} {', '.join(names)}" for kind, names in kinds.items())
    status = "" if row["status"] == "loaded" else row["status"]
    return NamedEntry(row["plugin"], f"{row['distribution']} {row['version']}", [brings, status])


def _plural(kind: str, names: list[str]) -> str:
    if len(names) == 1:
        return kind
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def _brought(report: Any) -> list[Any]:
    from metalearn_core import default_registry

    return [
        entry
        for catalogue in default_registry().catalogues.values()
        for entry in catalogue.values()
        if (entry.plugin, entry.distribution) == (report.name, report.distribution)
    ]


def _row(report: Any) -> dict[str, Any]:
    brought = _brought(report)
    return {
        "plugin": report.name,
        "brings": ", ".join(f"{entry.kind} {entry.name}" for entry in brought),
        "distribution": report.distribution,
        "version": report.version,
        "api": _api(brought),
        "source": report.source,
        "status": report.error or ("left out" if report.left_out else "loaded"),
    }


def _api(brought: list[Any]) -> Any:
    """What a plugin is written for: this core's API, or another that a rule of it is for."""
    from metalearn_core import UpdateRule

    ours = UpdateRule.api_version
    versions = [getattr(entry.factory, "api_version", ours) for entry in brought if entry.kind == "rule"]
    api = next((theirs for theirs in versions if theirs != ours), ours if brought else None)
    return api if api is None or isinstance(api, int) else str(api)


def _remedy(report: Any) -> str:
    """Which plugin, what is wrong with it, and what to do, in one line."""
    from metalearn_core import default_registry

    line = f"plugin {report.name} of {report.distribution} {report.version} ({report.source}): {report.error}"
    contested = [c.contested.values() for c in default_registry().catalogues.values()]
    if any((report.distribution, report.name) in owners for owners in itertools.chain(*contested)):
        return line  # which says what to do, and it need not be this one that goes
    if "No module named 'hypothesis'" in report.error:
        return f"{line}. It checks rules: pip install hypothesis pytest"
    return (
        f"{line}. Mend or upgrade it, or go on without it: pip uninstall {shlex.quote(report.distribution)}"
    )
