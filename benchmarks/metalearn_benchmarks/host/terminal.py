"""What the commands print with: a console as wide as people read, and tables, or JSON for programs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import click

from metalearn_core.errors import UsageError

EXIT_INTERRUPTED = 130
JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


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


def toml_option(text: str) -> tuple[str, Any]:
    """`key=value` with a TOML value."""
    key, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError("there is no =")
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except ValueError as error:
        raise UsageError(
            f"--option {text}: expected key=value with a TOML value, such as hidden=20 or 'inputs=[\"grad\"]'"
        ) from error
