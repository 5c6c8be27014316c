"""`metalearn experiments`: list the experiments, and about how long they take on this machine."""

from __future__ import annotations

import sys
from typing import Any

import click

from metalearn_benchmarks.cli.support.completion import complete_experiment
from metalearn_benchmarks.cli.support.options import JSON, SCALE, examples
from metalearn_benchmarks.host.exit_codes import EXIT_INTERRUPTED
from metalearn_benchmarks.host.terminal import console, echo, print_json


@click.command(
    short_help="The experiments: what they reproduce, how long they take.",
    epilog=examples("metalearn experiments", "metalearn experiments sine --scale paper --measure"),
)
@click.argument("names", shell_complete=complete_experiment, metavar="[EXPERIMENT]...", nargs=-1)
@click.option("--scale", type=SCALE, help="How large they would be run. [default: as `metalearn run` does]")
@click.option("--measure", is_flag=True, help="First time what was not timed on this machine: minutes.")
@JSON
def experiments(names: tuple[str, ...], scale: str | None, measure: bool, as_json: bool) -> None:
    """The shipped experiments, or EXPERIMENTs: what they reproduce, how many runs, about how long here."""
    from metalearn_benchmarks.cli.support import experiment_list

    listed = experiment_list.list_experiments(names, scale)
    if measure:
        _measure(listed, as_json)
    lines = experiment_list.estimate_durations(listed)
    if as_json:
        print_json([line.as_data() for line in lines])
        return
    for line in lines:
        console().print(line.as_entry())
    echo(experiment_list.footnote(lines))


def _measure(experiments: list[Any], quiet: bool) -> None:
    """Time the programs that have no time on this machine; Ctrl-C keeps what was timed."""
    from metalearn_benchmarks.host.machine import cores
    from metalearn_benchmarks.runs.durations.estimates import TimingCache
    from metalearn_benchmarks.runs.durations.measuring import time_programs

    cache = TimingCache.load()
    try:
        for listed in experiments:
            time_programs(listed.cells, cache, cores(), lambda text: echo(f"timing {text}", err=quiet))
    except KeyboardInterrupt:
        echo("stopped; what had been timed is kept, the same command goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
