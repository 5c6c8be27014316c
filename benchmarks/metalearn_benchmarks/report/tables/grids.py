"""An experiment with axes as grids: methods by T, and methods by setting (shots, domain)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from metalearn_benchmarks.records.row_names import compact_title, title_without_steps, without_steps
from metalearn_benchmarks.report.tables.result_table import ResultTable, Row


@attrs.frozen
class Grid:
    """The rows of one or several tables, with a method in each line.

    Args:
        says: what the columns are, in a few words.
        columns: the heads of the columns.
        lines: for each method its title, and its row in each column; None where it has none.
    """

    says: str
    columns: list[str]
    lines: list[tuple[str, list[Row | None]]]


def grid_of_steps(table: ResultTable) -> Grid | None:
    """Return the methods of a table by T, or None where T is no axis of it."""
    groups = table.groups
    if len(groups) < 2:
        return None
    columns = [f"T = {rows[0].group}" for rows in groups]
    cells = [{without_steps(row.method): row for row in rows} for rows in groups]
    titles = {without_steps(row.method): compact_title(title_without_steps(row.title)) for row in table.rows}
    return Grid("by T", columns, _lines(titles, cells))


def grid_of_settings(tables: Sequence[ResultTable]) -> Grid | None:
    """Return the methods of an experiment by setting, or None where settings share no two methods.

    Args:
        tables: the tables of one experiment.
    """
    cells = [{row.method: row for row in table.rows} for table in tables]
    shared = [method for method in cells[0] if all(method in of for of in cells[1:])]
    alike = len({(table.score, table.headline) for table in tables}) == 1
    if len(tables) < 2 or len(shared) < 2 or not alike:
        return None
    titles = {method: compact_title(cells[0][method].title) for method in shared}
    columns = _without_what_is_common([table.setting for table in tables])
    return Grid("by setting", columns, _lines(titles, cells))


def _lines(titles: dict[str, str], cells: Sequence[dict[str, Row]]) -> list[tuple[str, list[Row | None]]]:
    """A line for each method: those in most columns first, and in each column the best first."""
    places = [{method: place for place, method in enumerate(of)} for of in cells]

    def rank(method: str) -> tuple[int, float]:
        own = [of[method] for of in places if method in of]
        return -len(own), sum(own) / len(own)

    return [(titles[method], [of.get(method) for of in cells]) for method in sorted(titles, key=rank)]


def _without_what_is_common(names: Sequence[str]) -> list[str]:
    """Names of settings without the words that all of them begin with: `1-shot` of `sine-1-shot`."""
    parts = [name.split("-") for name in names]
    while all(len(part) > 2 for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    return ["-".join(part) for part in parts]
