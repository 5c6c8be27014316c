"""What the shell offers when Tab is pressed: the names there are, without loading torch or a plugin."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

import click
from click.shell_completion import CompletionItem


def complete_experiment(
    _context: click.Context, _option: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Offer the shipped experiments; where none begins like this, the shell offers files."""
    found = _beginning(begun, _shipped("experiments/shipped"))
    return found or [CompletionItem(begun, type="file")]


def complete_method(_context: click.Context, _option: click.Parameter, begun: str) -> list[CompletionItem]:
    """Offer the shipped methods."""
    return _beginning(begun, _shipped("experiments/methods"))


def complete_rule(_context: click.Context, _option: click.Parameter, begun: str) -> list[CompletionItem]:
    """Offer the installed plugins besides the harness; most are named as their rule."""
    from metalearn_benchmarks.plugins.entry_points import installed_plugins

    names = {name for name, owner in installed_plugins() if owner.metadata["Name"] != "metalearn-benchmarks"}
    return _beginning(begun, (name for name in names if not name.endswith("-map")))


def complete_trained_rule(
    _context: click.Context, _option: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Offer the trained rules that are shipped."""
    from metalearn_benchmarks.artifacts.zoo import zoo

    return _beginning(begun, zoo())


def _shipped(folder: str) -> list[str]:
    files = resources.files("metalearn_benchmarks").joinpath(folder).iterdir()
    return [entry.name.removesuffix(".toml") for entry in files if entry.name.endswith(".toml")]


def _beginning(begun: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(begun)]
