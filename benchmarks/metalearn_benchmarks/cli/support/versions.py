"""`metalearn --version`: of the program, of torch, and of each installed plugin."""

from __future__ import annotations

import click

from metalearn_benchmarks.plugins.entry_points import LOAD_PLUGINS


def show_versions(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """`--version`: of the program, of torch, and of each installed plugin, which are not imported for it."""
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version

    from metalearn_benchmarks.plugins.entry_points import installed, left_out

    core, torch = version("metalearn-core"), version("torch")
    click.echo(f"metalearn {version('metalearn-benchmarks')} (metalearn-core {core}, torch {torch})")
    lines = []
    for name, owner in sorted(installed(), key=lambda each: each[0]):
        away = f" (left out by {LOAD_PLUGINS})" if left_out(name, owner) else ""
        lines.append(f"  {name}: {owner.metadata['Name']} {owner.version}{away}")
    click.echo("plugins installed (`metalearn plugins list` says which of them work):")
    click.echo("\n".join(lines or ["  none"]))
    context.exit()
