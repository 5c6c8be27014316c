"""`metalearn plugins validate`: check what a distribution declares as a plugin."""

from __future__ import annotations

import sys

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.exit_codes import EXIT_FAILED
from metalearn_benchmarks.host.terminal import print_table


@click.command("validate", epilog=examples("metalearn plugins validate metalearn-lstm --imports"))
@click.argument("distribution")
@click.option("--imports", is_flag=True, help="Import it too, which runs its code.")
@JSON
def validate_command(distribution: str, imports: bool, as_json: bool) -> None:
    """Is DISTRIBUTION a plugin as it should be? By what it declares; exit code 1 if it is not."""
    import attrs

    from metalearn_benchmarks.plugins.validation import validate

    findings = validate(distribution, imports)
    print_table([attrs.asdict(finding) for finding in findings], as_json)
    if any(finding.status == "failed" for finding in findings):
        sys.exit(EXIT_FAILED)
