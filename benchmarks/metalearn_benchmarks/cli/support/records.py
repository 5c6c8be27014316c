"""What the commands on records share: the argument DIR, reading records, and writing a report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.terminal import echo
from metalearn_core.errors import UsageError

DIRECTORY = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


def write_and_print_report(
    directory: Path, console: Any, statistics: str = "t", out: Path | None = None,
    against: str | None = None,
) -> None:  # fmt: skip
    """Write the report of a DIR, and print its tables.

    Args:
        directory: A folder of records, or an archive.
        console: The console that the tables are printed on.
        statistics: How intervals are made: `t`, `bootstrap` or `paper`.
        out: The folder of the report; by default `report` in or beside `directory`.
        against: The method that differences are taken from, see `result_tables`.

    Raises:
        UsageError: There is no record, or none of `against`.
    """
    from metalearn_benchmarks.report.tables.over_streams import StreamTable, rich_stream_table
    from metalearn_benchmarks.report.tables.text import rich_table

    with console.status("reading the records") as status:
        for part in _write_report(directory, statistics, out, against):
            if isinstance(part, Path):
                console.print(visible(f"report: {part}"), soft_wrap=True)
            elif isinstance(part, StreamTable):
                console.print(rich_stream_table(part))
            else:
                console.print(rich_table(part))
                status.update("drawing the figures of the report")


def write_report_as_data(
    directory: Path, statistics: str = "t", out: Path | None = None, against: str | None = None
) -> dict[str, Any]:
    """Write the report of a DIR as `write_and_print_report` does, and return its tables as plain data."""
    from metalearn_benchmarks.report.tables.data import stream_table_as_data, table_as_data
    from metalearn_benchmarks.report.tables.over_streams import StreamTable

    *tables, page = _write_report(directory, statistics, out, against)
    over = [one for one in tables if isinstance(one, StreamTable)]
    return {
        "report": str(page),
        "tables": [table_as_data(one) for one in tables if not isinstance(one, StreamTable)],
        "over_streams": [stream_table_as_data(one) for one in over],
    }


def _write_report(directory: Path, statistics: str, out: Path | None, against: str | None) -> Iterator[Any]:
    """Yield the tables of a DIR, and after them the page, which is written last."""
    from metalearn_benchmarks.report.grouping import cross_family_records
    from metalearn_benchmarks.report.page import write_report
    from metalearn_benchmarks.report.tables import building
    from metalearn_benchmarks.report.tables.over_streams import stream_tables

    records, left_out = readable_records(directory)
    unfinished = require_records(records, directory)
    results = building.result_tables([*records, *cross_family_records(records)], statistics, against)
    yield from results
    streams = stream_tables(records, against)
    yield from streams
    folder = directory if directory.is_dir() else directory.parent
    yield write_report(records, out or folder / "report", unfinished, left_out, statistics, results, streams)


def require_records(records: list[Any], directory: Path) -> int:
    """Return how many runs in DIR have started and have no record.

    Raises:
        UsageError: `records` is empty.
    """
    from metalearn_benchmarks.records import record

    unfinished = len(list(record.unfinished_runs(directory)))
    if not records:
        raise UsageError(
            f"{directory}: no finished run is in it ({unfinished} begun); run an experiment first"
        )
    return unfinished


def readable_records(directory: Path) -> tuple[list[Any], list[str]]:
    """Return the finished runs in DIR, and a line for each that cannot be read, which is also printed."""
    from metalearn_benchmarks.records.reading import read_records

    left_out: list[str] = []
    records = read_records(directory, left_out.append)
    for line in left_out:
        echo(visible(f"metalearn: {' '.join(line.split())} (left out)"), err=True)
    return records, left_out
