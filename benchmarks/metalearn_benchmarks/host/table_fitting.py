"""Tables that fit the terminal: names stay whole, prose wraps, and what has no room is left out and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from rich.box import Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from metalearn_benchmarks.host.escape import visible

LEAST_PROSE = 16
"""Prose that is narrower than this is a column of single words."""


@attrs.frozen
class Column:
    """A column of a table.

    Args:
        header: What stands over it.
        wraps: Whether its cells are prose, which may be broken into lines between words.
        right: Whether it is aligned to the right, as numbers are.
        rank: Where a table is too wide, columns with a higher rank are left out first; 0 always stays.
    """

    header: str
    wraps: bool = False
    right: bool = False
    rank: int = 0


@attrs.frozen
class FittedTable:
    """A table as wide as the terminal allows.

    Args:
        columns: The columns. The first one names the rows.
        rows: The cells of each row.
        elsewhere: Where a reader finds the columns that are left out, such as "--json has them".
        title: What stands above.
        below: Paragraphs that stand below.
        box: The lines around the cells; None for none.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Text]]
    elsewhere: str = ""
    title: str | None = None
    below: Sequence[str] = ()
    box: Box | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        between, edges = (2, 0) if self.box is None else (3, 1)
        widths = self._widths(options.max_width - edges, between)
        table = Table(
            title=None if self.title is None else Text(visible(self.title)),
            box=self.box, pad_edge=self.box is not None,
        )  # fmt: skip
        for index, width in widths.items():
            column = self.columns[index]
            table.add_column(
                Text(column.header), width=width, justify="right" if column.right else "left", overflow="fold"
            )
        for row in self.rows:
            table.add_row(*(row[index] for index in widths))
        yield table
        away = [column.header for index, column in enumerate(self.columns) if index not in widths]
        if away:
            yield Text(f"not shown: {', '.join(away)}; {self.elsewhere}", style="dim")
        for paragraph in self.below:
            yield Text(visible(paragraph), style="dim")

    def _widths(self, room: int, between: int) -> dict[int, int]:
        """The width of each column that is shown, in the columns' order."""
        natural = [
            max(_longest([Text(column.header), *(row[index] for row in self.rows)]), 1)
            for index, column in enumerate(self.columns)
        ]
        least = [
            min(width, LEAST_PROSE) if column.wraps else width
            for width, column in zip(natural, self.columns, strict=True)
        ]
        chosen = {0}
        for index in sorted(range(1, len(least)), key=lambda i: self.columns[i].rank):
            needed = sum(least[i] + between for i in {*chosen, index}) - (between if between == 2 else 0)
            if self.columns[index].rank == 0 or needed <= room:
                chosen.add(index)
        room -= between * len(chosen) - (between if between == 2 else 0)
        return _shrink({i: natural[i] for i in sorted(chosen)}, least, room)


def _longest(cells: Sequence[Text]) -> int:
    return max(cell_len(line) for cell in cells for line in cell.plain.split("\n"))


def _shrink(widths: dict[int, int], least: Sequence[int], room: int) -> dict[int, int]:
    """Take from the widest column until all fit: of those above their least width, while there are any."""
    while sum(widths.values()) > room:
        can = [index for index in widths if widths[index] > least[index]]
        widest = max(can or widths, key=widths.__getitem__)
        if widths[widest] <= 1:
            break
        widths[widest] -= 1
    return widths


def fitted_table(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str] = (), order: Sequence[str] = ()
) -> FittedTable:
    """Build a table from rows that share their keys; the keys are the header.

    Args:
        rows: The rows.
        names: Keys of columns of names, which are not broken; the first key is one of them.
        order: The keys from the most to the least important; those that are missing follow from the left.
    """
    keys = list(rows[0]) if rows else ["nothing"]
    ranked = list(dict.fromkeys([*(key for key in order if key in keys), *keys[1:]]))
    columns = [
        Column(key, wraps=index > 0 and key not in names, rank=ranked.index(key) + 1 if index else 0)
        for index, key in enumerate(keys)
    ]
    cells = [[Text("" if value is None else visible(str(value))) for value in row.values()] for row in rows]
    return FittedTable(columns, cells, elsewhere="--json has all")
