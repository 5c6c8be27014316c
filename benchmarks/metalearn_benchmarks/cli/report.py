"""`metalearn report`: write tables, figures and one page from records alone."""

from __future__ import annotations

from pathlib import Path

import click

from metalearn_benchmarks.cli.support.completion import complete_method
from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.cli.support.records import (
    DIRECTORY,
    write_and_print_report,
    write_report_as_data,
)
from metalearn_benchmarks.host import terminal
from metalearn_benchmarks.host.terminal import print_json


@click.command(
    short_help="Tables, figures and a page, from the records in DIR.",
    epilog=examples(
        "metalearn report results/paper --against maml",
        "metalearn report results/paper --statistics bootstrap --json",
    ),
)
@DIRECTORY
@click.option(
    "--statistics", type=click.Choice(["t", "bootstrap", "paper"]), default="t", show_default=True,
    help="How 95 % intervals are made: Student's t over seeds; a BCa bootstrap over seeds and test tasks;"
    " or as the paper's program does, without outliers.",
)  # fmt: skip
@click.option(
    "--against", metavar="METHOD", shell_complete=complete_method,
    help="Take differences from this method's row. [default: the best row]",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Where to. [default: DIR/report; of an archive, `report` beside it]",
)  # fmt: skip
@JSON
def report(directory: Path, statistics: str, against: str | None, out: Path | None, as_json: bool) -> None:
    """Tables, figures and one self-contained report.html of the records in DIR, a folder or an archive."""
    if as_json:
        print_json(write_report_as_data(directory, statistics, out, against))
    else:
        write_and_print_report(directory, terminal.console(), statistics, out, against)
