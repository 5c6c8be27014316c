"""The paper's own numbers, as data: its tables, and its claims with the rule that decides each."""

from __future__ import annotations

import tomllib
from importlib import resources

import attrs


@attrs.frozen
class PaperTable:
    """A table of the paper; `rows`: of each method, the number and its half-width in each column."""

    columns: tuple[str, ...]
    rows: dict[str, tuple[tuple[float, float], ...]]


def read(name: str) -> str:
    """The text of a file of this folder."""
    return (resources.files(__name__) / name).read_text("utf-8")


def paper_tables() -> dict[str, PaperTable]:
    """Tables 3.1 and 3.4, as `table-3-1` and `table-3-4`."""
    return {
        name: PaperTable(
            tuple(table.pop("columns")),
            {method: tuple((value, half) for value, half in row) for method, row in table.items()},
        )
        for name, table in tomllib.loads(read("tables.toml")).items()
    }
