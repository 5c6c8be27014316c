"""`metalearn run`: run what is missing of an experiment in a folder, from where it stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.cli.support.options import SCALE, toml_option
from metalearn_benchmarks.cli.support.records import write_and_print_report
from metalearn_benchmarks.host import terminal
from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from metalearn_benchmarks.host.terminal import echo
from metalearn_core.errors import UsageError


class RuleCommand(click.Command):
    """A command in which every `--option` belongs to the `--rule` before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `--rule R --option k=v ...` out of the arguments, in their order.

        The rules and their options are left in `ctx.obj`.
        """
        rest: list[str] = []
        rules: list[tuple[str, dict[str, Any]]] = []
        words = iter(args)
        for word in words:
            name, equals, value = word.partition("=")
            if name not in ("--rule", "--option"):
                rest.append(word)
                continue
            given = value if equals else next(words, None)
            if given is None:
                raise UsageError(f"{name} needs a value")
            if name == "--rule":
                rules.append((given, {}))
            elif not rules:
                raise UsageError(f"--option {given}: it belongs to a rule; say --rule NAME before it")
            else:
                rules[-1][1].update([toml_option(given)])
        ctx.obj = rules
        return super().parse_args(ctx, rest)


class SeedsTogether(click.IntRange):
    """The number of seeds that train as one program, or None for `auto`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert `auto` to None, and other words to an integer of at least 1."""
        if value == "auto":
            return None
        if isinstance(value, str) and not value.lstrip("+-").isdigit():
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        return super().convert(value, param, ctx)


@click.command(cls=RuleCommand)
@click.argument("experiment")
@click.option("--method", "-m", "methods", multiple=True, help="Run this method alone; may be repeated.")
@click.option("--rule", "_rule", metavar="R", help="Add a row with an installed rule; may be repeated.")
@click.option("--option", "_option", metavar="K=V", help="An option of the --rule before it; V is TOML.")
@click.option(
    "--only", multiple=True, metavar="ROW",
    help="Run this row alone, METHOD or SETTING/METHOD as tables have it, * for anything; may be repeated.",
)  # fmt: skip
@click.option("--scale", type=SCALE, default="small", show_default=True, help="How large to run it.")
@click.option("--seeds", type=click.IntRange(min=1), help="Seeds 0 ... N-1 instead of the scale's.")
@click.option("--tasks", type=click.IntRange(min=1), help="Meta-training tasks instead of the scale's.")
@click.option("--steps", type=click.IntRange(min=0), help="T, at training and at test.")
@click.option("--order", type=click.Choice(["first", "second"]), help="Of the meta-gradient.")
@click.option("--protocol", type=click.Choice(["paper", "authors"]), default="paper", show_default=True,
              help="As the text has it, or as the authors' program does, in rows of their own.")  # fmt: skip
@click.option("--engine", type=click.Choice(["auto", "eager", "compiled"]), help="How meta-steps are run.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute, as torch names it.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option("--workers", type=click.IntRange(min=1), help="Runs at a time. [default: the cores, or 1 GPU]")
@click.option(
    "--ray", "address", metavar="ADDRESS",
    help="Instead: run on a Ray cluster, HOST:PORT or auto; local starts one here. DIR must lie on a file"
    " system that all its nodes share.",
)  # fmt: skip
@click.option(
    "--together", type=SeedsTogether(min=1), default="auto", show_default=True, metavar="N|auto",
    help="Seeds of a method that train as one program; auto: all that fit in memory, in compiled runs.",
)  # fmt: skip
@click.option(
    "--observe", multiple=True, metavar="NAME",
    help="Tell this observer too, tensorboard or json-lines or an installed one; may be repeated.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Where records go. [default: results/SCALE]")
@click.pass_context
def run(
    context: click.Context,
    /,
    experiment: str,
    scale: str,
    workers: int | None,
    address: str | None,
    together: int | tuple[int, ...] | None,
    out: Path | None,
    _rule: None,
    _option: None,
    **given: Any,
) -> None:
    """Run EXPERIMENT, a shipped name or a TOML file: what is missing in DIR, from where it stopped.

    The experiment.toml of a record is a file too: that one run is computed again, as it was.
    """
    from metalearn_benchmarks.cli.support.progress import Display
    from metalearn_benchmarks.host.machine import cores
    from metalearn_benchmarks.runs.runner import run_experiment

    processes = _torchrun_processes()
    _require_one_backend(workers, address, processes)
    console = terminal.console(stderr=_observers_take_stdout(given["observe"], address))
    cells, recorded_seeds = _find_cells(context, experiment, scale, {**given, "processes": processes})
    together = recorded_seeds or together
    if address is None:
        _require_possible_here(cells[0], workers, processes, recorded=bool(recorded_seeds))
    directory = out or Path("results", cells[0].scale)
    if workers is None:
        alone = cells[0].device == "cpu" and processes == 1
        workers = max(cores() // cells[0].threads, 1) if alone else 1
    try:
        with (
            _process_group(cells) as group,
            _ray_cluster(address) as cluster,
            Display(console, len(cells)) as display,
        ):
            outcome = run_experiment(cells, directory, display, workers, together, cluster, group)
    except KeyboardInterrupt:
        echo(f"stopped; everything is saved in {directory}, the same command goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    problems = [*outcome.skipped_settings, *outcome.failed, *outcome.diverged]
    if len(outcome.failed) < len(cells) - outcome.not_run:
        write_and_print_report(directory, console)
    for line in problems:
        echo(visible(f"metalearn: {line}"), err=True)
    if problems:
        sys.exit(EXIT_USAGE if outcome.user_errors == len(cells) - outcome.not_run else EXIT_FAILED)


MOST_RECORDED_THREADS = 64
"""Threads of a run that is computed again: it repeats only with as many, whatever cores there are."""
WORKERS_PER_CORE, FEWEST_WORKERS = 8, 64
"""The most programs at a time on a machine: so many for each core, and so many in any case."""


def _require_possible_here(cell: Any, workers: int | None, processes: int, recorded: bool) -> None:
    """Raise UsageError for a device that is not here, or more threads or programs than are of any use."""
    from metalearn_benchmarks.host.machine import cores
    from metalearn_benchmarks.runs.components import usable_device

    most_threads = max(cores(), MOST_RECORDED_THREADS if recorded else 1)
    most_workers = max(WORKERS_PER_CORE * cores(), FEWEST_WORKERS)
    for option, given, most in (
        ("--threads", cell.threads, most_threads),
        ("--workers", workers, most_workers),
    ):
        if given is not None and given > most:
            raise UsageError(
                f"{option} {given}: on the {cores()} core(s) there are, the most is {most}; ask for fewer"
            )
    if processes == 1:  # torchrun gives each process a device of its own, and looks at it
        usable_device(cell.device)


def _torchrun_processes() -> int:
    """The number of processes that torchrun has started for this run; 1 without torchrun."""
    size = os.environ.get("WORLD_SIZE", "1") if {"RANK", "MASTER_ADDR"} <= os.environ.keys() else "1"
    return int(size) if size.isascii() and size.isdecimal() else 1


def _require_one_backend(workers: int | None, address: str | None, processes: int) -> None:
    """Raise UsageError where several of worker processes, Ray and torchrun are asked for."""
    backends = [] if workers is None else [f"--workers {workers} (programs on this machine)"]
    backends += [] if address is None else [f"--ray {address} (programs on a cluster)"]
    backends += [] if processes == 1 else [f"torchrun ({processes} processes for one run at a time)"]
    if len(backends) > 1:
        raise UsageError(f"{' and '.join(backends)} exclude each other: use one of them")


def _observers_take_stdout(observe: tuple[str, ...], address: str | None) -> bool:
    """Whether an observer has standard output to itself; UsageError for an unknown one, or one on Ray."""
    from metalearn_benchmarks.runs.observers import dispatch

    dispatch.require_observers(observe)
    taken = dispatch.any_writes_stdout(observe)
    if taken and address is not None:
        raise UsageError(
            f"--ray {address}: an observer that writes on standard output would write on the cluster's nodes;"
            " run it with --workers"
        )
    return taken


def _process_group(cells: Sequence[Any]) -> AbstractContextManager[Any]:
    """The group of processes that torchrun started, or None. Only the first process returns from it."""
    if cells[0].processes == 1:
        return nullcontext()
    from metalearn_benchmarks.runs.backends.torchrun import join_processes, require_shares

    require_shares(cells)
    return join_processes(cells[0].device)


def _ray_cluster(address: str | None) -> AbstractContextManager[Any]:
    """The Ray cluster at an address, or None."""
    if address is None:
        return nullcontext()
    from metalearn_benchmarks.runs.backends.ray.cluster import RayCluster

    return RayCluster(address)


def _find_cells(
    context: click.Context, experiment: str, scale: str, given: dict[str, Any]
) -> tuple[list[Any], tuple[int, ...]]:
    """The cells of EXPERIMENT; for a record that is run again, also the seeds that trained with it."""
    import attrs

    from metalearn_benchmarks.experiments import catalogue
    from metalearn_benchmarks.runs import recompute

    recorded = recompute.read_recorded_cell(experiment)
    if recorded is not None:
        recompute.require_no_other_options(context, experiment)
        cell, seeds, checksums = recorded
        recompute.require_processes(cell, experiment, given["processes"])
        recompute.require_data(cell, experiment, checksums)
        return [attrs.evolve(cell, observe=tuple(given["observe"]))], seeds
    name, found = catalogue.find_experiment(experiment)
    overrides = catalogue.Overrides(rules=context.obj, **given)
    return catalogue.cells(name, found, scale, overrides), ()
