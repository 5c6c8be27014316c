"""`metalearn plugins list`: list the plugins, and what is wrong with them."""

from __future__ import annotations

import itertools
import shlex
import sys
from typing import Any

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.exit_codes import EXIT_FAILED
from metalearn_benchmarks.host.terminal import echo, print_table
from metalearn_benchmarks.plugins.entry_points import LOAD_PLUGINS


@click.command("list", epilog=examples("metalearn plugins list"))
@click.option("--all", "everything", is_flag=True, help="Those too that METALEARN_LOAD_PLUGINS leaves out.")
@JSON
@click.pass_context
def list_command(context: click.Context, everything: bool, as_json: bool) -> None:
    """Every plugin, what it brings, and what is wrong with it; exit code 1 if anything is."""
    from metalearn_core import default_registry

    registry = default_registry()
    rows = [_row(report) for report in registry.reports if everything or not report.left_out]
    if as_json:
        print_table(rows, as_json)
    else:
        # where it lies is long, and `show` and --json say it
        shown = [{k: v for k, v in row.items() if k != "source"} for row in rows]
        print_table(shown, as_json, ("distribution", "version", "api"), ("status", "brings", "distribution"))
    away = sum(report.left_out for report in registry.reports)
    if away and not everything:
        by = "--no-plugins" if context.find_root().params.get("no_plugins") else LOAD_PLUGINS
        echo(f"{away} left out by {by}; --all shows them", err=True)
    faulty = [report for report in registry.reports if report.error]
    for report in faulty:
        echo(visible(_remedy(report)), err=True)
    if faulty:
        sys.exit(EXIT_FAILED)


def _row(report: Any) -> dict[str, Any]:
    from metalearn_core import default_registry

    brought = [
        entry
        for catalogue in default_registry().catalogues.values()
        for entry in catalogue.values()
        if (entry.plugin, entry.distribution) == (report.name, report.distribution)
    ]
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
