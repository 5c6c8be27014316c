"""`metalearn families`: list the installed families of tasks."""

from __future__ import annotations

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.terminal import print_table


@click.command(short_help="The families of tasks.", epilog=examples("metalearn families"))
@JSON
def families(as_json: bool) -> None:
    """The installed families of tasks, one line each."""
    from metalearn_core import task_families

    rows = [
        {"family": name, "distribution": entry.distribution, "options": ", ".join(entry.options())}
        for name, entry in task_families().items()
    ]
    print_table(rows, as_json, ("distribution",), ("options",))
