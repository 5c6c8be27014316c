"""`metalearn claims`: compare the claims of the paper with records."""

from __future__ import annotations

from pathlib import Path

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.cli.support.records import DIRECTORY, readable_records, require_records
from metalearn_benchmarks.host import terminal
from metalearn_benchmarks.host.terminal import print_json


@click.command(
    short_help="The claims of the paper against the records in DIR.",
    epilog=examples("metalearn claims results/paper"),
)
@DIRECTORY
@JSON
def claims(directory: Path, as_json: bool) -> None:
    """Every claim of the paper against the records in DIR: holds, does not hold, or too little evidence.

    The exit code is 0 whatever the verdicts are. The rules that decide are in paper/claims.toml of this
    package; runs below the paper's scale decide nothing.
    """
    from metalearn_benchmarks.claims import text
    from metalearn_benchmarks.claims.rules import claim_rules
    from metalearn_benchmarks.claims.verdicts import decide_all

    found, _ = readable_records(directory)
    require_records(found, directory)
    verdicts = decide_all(claim_rules(), found)
    if as_json:
        print_json(text.as_data(verdicts))
    else:
        terminal.console().print(text.VerdictOverview(verdicts))
