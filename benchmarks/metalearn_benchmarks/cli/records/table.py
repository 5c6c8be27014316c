"""`metalearn records`: write records as one table, for programs that read data."""

from __future__ import annotations

from pathlib import Path

import click

from metalearn_benchmarks.cli.support.options import JSON, RenamedOption, examples
from metalearn_benchmarks.cli.support.records import DIRECTORY
from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.terminal import echo, print_json
from metalearn_core.errors import UsageError


def _tell_left_out(line: str) -> None:
    echo(visible(f"metalearn: {' '.join(line.split())} (left out)"), err=True)


@click.command(
    short_help="Records as one table, Parquet or CSV.",
    epilog=examples(
        "metalearn records results/paper --to runs.csv",
        "metalearn records results/paper --each task --to tasks.parquet",
    ),
)
@DIRECTORY
@click.option(
    "--to", "--out", "to", cls=RenamedOption, type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="The table, NAME.parquet or NAME.csv.",
)  # fmt: skip
@click.option(
    "--each", type=click.Choice(["run", "task", "validation"]), default="run", show_default=True,
    help="What a row is.",
)  # fmt: skip
@JSON
def records(directory: Path, to: Path, each: str, as_json: bool) -> None:
    """Write the records in DIR, folders and archives, as one table: a row for each run.

    A run that cannot be read is named and left out. In Python, metalearn_benchmarks.read_records(DIR) gives
    the same table.
    """
    from metalearn_benchmarks.records.frames import read_records, require_table_name, write_table

    require_table_name(to)
    frame = read_records(directory, each, _tell_left_out)
    if frame.empty:
        raise UsageError(f"{directory}: no finished run in it has a {each} to write; run an experiment first")
    size = write_table(frame, to)
    if as_json:
        print_json({"table": str(to), "rows": len(frame), "columns": list(frame.columns), "bytes": size})
    else:
        echo(visible(f"{to}: {len(frame)} rows, {len(frame.columns)} columns"))
