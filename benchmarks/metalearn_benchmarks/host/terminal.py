"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


def console(stderr: bool = False) -> Any:
    """Open a `rich.console.Console` as wide as the terminal, or wide enough for tables in a log.

    Args:
        stderr: Whether it writes to the standard error in place of the standard output.
    """
    from rich.console import Console

    terminal = Console(stderr=stderr)
    return terminal if terminal.is_terminal else Console(width=140, stderr=stderr)


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Build a `rich.table.Table` from rows that share their keys; the keys are the header."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(*(rows[0] if rows else ("nothing",)), box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    return shown


def print_table(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print rows on the standard output, as a table or as JSON."""
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1))
    else:
        console().print(table(rows))
