"""`metalearn report`: write tables, figures and one page from records alone."""

from __future__ import annotations

from pathlib import Path

import click

from metalearn_benchmarks.cli.support.records import DIRECTORY, write_and_print_report
from metalearn_benchmarks.host import terminal


@click.command()
@DIRECTORY
@click.option(
    "--statistics", type=click.Choice(["t", "bootstrap", "paper"]), default="t", show_default=True,
    help="How 95 % intervals are made: Student's t over seeds; a BCa bootstrap over seeds and test tasks;"
    " or as the paper's program does, without outliers.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Where to. [default: DIR/report; of an archive, `report` beside it]",
)  # fmt: skip
def report(directory: Path, statistics: str, out: Path | None) -> None:
    """Tables, figures and one self-contained report.html of the records in DIR, a folder or an archive."""
    write_and_print_report(directory, terminal.console(), statistics, out)
