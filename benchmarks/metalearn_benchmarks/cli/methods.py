"""`metalearn methods`: list the shipped methods."""

from __future__ import annotations

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.terminal import print_table


@click.command(
    short_help="The methods, which are the rows of a table.", epilog=examples("metalearn methods --json")
)
@JSON
def methods(as_json: bool) -> None:
    """The shipped methods, one line each."""
    from metalearn_benchmarks.experiments import catalogue

    rows = [
        {"method": name, "title": m.title, "start": m.start, "rule": m.rule, "source": m.source}
        for name, m in catalogue.methods().items()
    ]
    print_table(rows, as_json, ("rule",), ("title", "source", "rule"))
