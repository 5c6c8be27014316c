"""The option `metalearn --version`."""

from __future__ import annotations

import click

from metalearn_benchmarks.host.terminal import echo
from metalearn_benchmarks.plugins.entry_points import LOAD_PLUGINS


def show_versions(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """Print the versions of metalearn, torch and each installed plugin, and exit; no plugin is imported.

    The arguments are those of a callback of click.
    """
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version

    from metalearn_benchmarks.plugins.entry_points import installed_plugins, left_out

    core, torch = version("metalearn-core"), version("torch")
    echo(f"metalearn {version('metalearn-benchmarks')} (metalearn-core {core}, torch {torch})")
    lines = []
    for name, owner in sorted(installed_plugins(), key=lambda each: each[0]):
        away = f" (left out by {LOAD_PLUGINS})" if left_out(name, owner) else ""
        lines.append(f"  {name}: {owner.metadata['Name']} {owner.version}{away}")
    echo("plugins installed (`metalearn plugins list` says which of them work):")
    echo("\n".join(lines or ["  none"]))
    context.exit()
