"""`metalearn experiments`: what there is to run, and about how long it takes here."""

from __future__ import annotations

import sys
from typing import Any

import click

from metalearn_benchmarks.cli.support.options import JSON, SCALE
from metalearn_benchmarks.host.exit_codes import EXIT_INTERRUPTED
from metalearn_benchmarks.host.machine import cores
from metalearn_benchmarks.host.terminal import print_table


@click.command()
@click.argument("names", metavar="[EXPERIMENT]...", nargs=-1)
@click.option("--scale", type=SCALE, default="small", show_default=True, help="How large they would be run.")
@click.option("--measure", is_flag=True, help="First time what was not timed on this machine: minutes.")
@JSON
def experiments(names: tuple[str, ...], scale: str, measure: bool, as_json: bool) -> None:
    """The shipped experiments, or EXPERIMENTs: what they reproduce, how many runs, about how long here."""
    from metalearn_benchmarks.cli.support import experiment_list

    found = experiment_list.listed_experiments(names, scale)
    if measure:
        _measure(found, as_json)
    lines = experiment_list.with_durations(found)
    if as_json:
        print_table([line.as_data() for line in lines], as_json)
        return
    print_table([line.as_row() for line in lines], as_json)
    click.echo(experiment_list.footnote(lines, scale))


def _measure(found: list[Any], quiet: bool) -> None:
    from metalearn_benchmarks.runs.durations.estimates import Times
    from metalearn_benchmarks.runs.durations.measuring import measure

    times = Times.here()
    try:
        for one in found:
            measure(one.cells, times, cores(), lambda text: click.echo(f"timing {text}", err=quiet))
    except KeyboardInterrupt:
        click.echo("stopped; what had been timed is kept, the same command goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
