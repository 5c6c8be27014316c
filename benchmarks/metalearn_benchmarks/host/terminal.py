"""What the commands print with: a console as wide as people read, and tables, or JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


def console(stderr: bool = False) -> Any:
    """Where people read: as wide as the terminal, and wide enough for a table in a log."""
    from rich.console import Console

    found = Console(stderr=stderr)
    return found if found.is_terminal else Console(width=140, stderr=stderr)


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows with the same keys, which are the header."""
    from rich.table import Table
    from rich.text import Text

    made = Table(*(rows[0] if rows else ("nothing",)), box=None, pad_edge=False)
    for row in rows:
        made.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    return made


def print_table(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """A table on the standard output, or the rows as JSON."""
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1))
    else:
        console().print(table(rows))
