"""What the commands on records share: where the records are, and which can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metalearn_core.errors import UsageError

DIRECTORY = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


def show_report(directory: Path, console: Any, statistics: str = "t", out: Path | None = None) -> None:
    """Write the report of a DIR and show its tables; UsageError where there is no record."""
    from metalearn_benchmarks.report import tables
    from metalearn_benchmarks.report.page import across_families, write_report
    from metalearn_benchmarks.report.table_text import for_terminal

    found, left_out = readable_records(directory)
    begun = require_records(found, directory)
    results = tables.result_tables([*found, *across_families(found)], statistics)
    for result in results:
        console.print(for_terminal(result))
    folder = directory if directory.is_dir() else directory.parent
    page = write_report(found, out or folder / "report", begun, left_out, statistics, results)
    console.print(f"report: {page}", soft_wrap=True)


def require_records(found: list[Any], directory: Path) -> int:
    """UsageError where there is no record; how many runs were begun and have none."""
    from metalearn_benchmarks.records import record as records

    begun = len(list(records.unfinished(directory)))
    if not found:
        raise UsageError(f"{directory}: no finished run is in it ({begun} begun); run an experiment first")
    return begun


def readable_records(directory: Path) -> tuple[list[Any], list[str]]:
    """The finished runs in DIR; what cannot be read is left out, and told of in a line each."""
    from metalearn_benchmarks.records.reading import read_records

    left_out: list[str] = []
    found = read_records(directory, left_out.append)
    for line in left_out:
        click.echo(f"metalearn: {' '.join(line.split())} (left out)", err=True)
    return found, left_out
