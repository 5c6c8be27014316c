"""The command `metalearn`. What a command needs is imported when it runs: `--help` needs no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.cli.data_commands import data
from metalearn_benchmarks.cli.map import rule_map
from metalearn_benchmarks.cli.plugin_commands import plugins, show_versions
from metalearn_benchmarks.cli.record_commands import archive, claims, report, show_report
from metalearn_benchmarks.cli.speed import speed
from metalearn_benchmarks.host import terminal
from metalearn_benchmarks.host.machine import cores
from metalearn_benchmarks.host.terminal import EXIT_INTERRUPTED, JSON, print_table, toml_option
from metalearn_core.errors import UsageError

EXIT_FAILED_CELLS, EXIT_USAGE = 1, 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_versions,
    help="The versions of metalearn, torch and every plugin.",
)  # fmt: skip
@click.option("--no-plugins", is_flag=True, help="Load no plugin, as METALEARN_LOAD_PLUGINS='' does.")
def metalearn(no_plugins: bool) -> None:
    """Learned update rules: run the paper's experiments, compare rules, read what came out."""
    if no_plugins:
        os.environ["METALEARN_LOAD_PLUGINS"] = ""


class RuleCommand(click.Command):
    """A command in which every `--option` belongs to the `--rule` before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `--rule R --option k=v ...` out of the arguments, in their order."""
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


class Together(click.IntRange):
    """How many seeds train as one program: a number, or None for `auto`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """`auto`, or an integer >= 1."""
        if value == "auto":
            return None
        if isinstance(value, str) and not value.lstrip("+-").isdigit():
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        return super().convert(value, param, ctx)


SCALE = click.Choice(["smoke", "small", "paper"])


@metalearn.command(cls=RuleCommand)
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
    "--together", type=Together(min=1), default="auto", show_default=True, metavar="N|auto",
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
    from metalearn_benchmarks.cli.progress import Display
    from metalearn_benchmarks.runs.runner import run_experiment

    processes = _of_torchrun()
    console = terminal.console(stderr=_require_one_way(workers, address, processes, given["observe"]))
    cells, again = _asked(context, experiment, scale, {**given, "processes": processes})
    together = again or together
    directory = out or Path("results", cells[0].scale)
    if workers is None:
        alone = cells[0].device == "cpu" and processes == 1
        workers = max(cores() // cells[0].threads, 1) if alone else 1
    try:
        with (
            _together_with_others(cells) as others,
            _cluster(address) as cluster,
            Display(console, len(cells)) as display,
        ):
            outcome = run_experiment(cells, directory, display, workers, together, cluster, others)
    except KeyboardInterrupt:
        click.echo(f"stopped; everything is saved in {directory}, the same command goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    problems = [*outcome.left_out, *outcome.failed, *outcome.diverged]
    if len(outcome.failed) < len(cells) - outcome.not_run:
        show_report(directory, console)
    for line in problems:
        click.echo(f"metalearn: {line}", err=True)
    if problems:
        sys.exit(EXIT_USAGE if outcome.mendable == len(cells) - outcome.not_run else EXIT_FAILED_CELLS)


def _of_torchrun() -> int:
    """How many processes torchrun has started for this run; 1 without it."""
    told = os.environ.get("WORLD_SIZE", "1") if {"RANK", "MASTER_ADDR"} <= os.environ.keys() else "1"
    return int(told) if told.isdigit() else 1


def _require_one_way(
    workers: int | None, address: str | None, processes: int, observe: tuple[str, ...]
) -> bool:
    """Whether an observer has standard output to itself; UsageError for what excludes each other."""
    from metalearn_benchmarks.runs.observers import dispatch

    asked = [] if workers is None else [f"--workers {workers} (programs on this machine)"]
    asked += [] if address is None else [f"--ray {address} (programs on a cluster)"]
    asked += [] if processes == 1 else [f"torchrun ({processes} processes for one run at a time)"]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} exclude each other: use one of them")
    dispatch.require(observe)
    talks = dispatch.takes_stdout(observe)
    if talks and address is not None:
        raise UsageError(
            f"--ray {address}: an observer that writes on standard output would write on the cluster's nodes;"
            " run it with --workers"
        )
    return talks


def _together_with_others(cells: Sequence[Any]) -> AbstractContextManager[Any]:
    """The processes that torchrun started, or None; one that is not the first never gets out of it."""
    if cells[0].processes == 1:
        return nullcontext()
    from metalearn_benchmarks.runs.backends.torchrun import joined, require_shares

    require_shares(cells)
    return joined(cells[0].device)


def _cluster(address: str | None) -> AbstractContextManager[Any]:
    """The Ray cluster that is asked for, or None."""
    if address is None:
        return nullcontext()
    from metalearn_benchmarks.runs.backends.ray.cluster import RayCluster

    return RayCluster(address)


@metalearn.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where to. [default: RUN/artifact]")
@JSON
def export(run_folder: Path, out: Path | None, as_json: bool) -> None:
    """The trained rule and initialisation of RUN as safetensors and a JSON card.

    RUN is a record's folder, DIR/<experiment>/<setting>/<method>/<seed>, of a finished or validated run.
    """
    from metalearn_benchmarks.runs.export import export_run

    folder, card = export_run(run_folder, out)
    if as_json:
        import json

        click.echo(json.dumps({"folder": str(folder), "card": card}, indent=1, ensure_ascii=False))
    else:
        rule, size = card["rule"]["name"], card["layout"]["size"]
        click.echo(
            f"artifact: {folder} (rule {rule}, n = {size}, best of task {card['training']['position']})"
        )


def _asked(
    context: click.Context, experiment: str, scale: str, given: dict[str, Any]
) -> tuple[list[Any], tuple[int, ...]]:
    """The runs that EXPERIMENT is; of a record run again, also the seeds that trained with it."""
    import attrs

    from metalearn_benchmarks.experiments import catalogue
    from metalearn_benchmarks.runs import recompute

    again = recompute.recorded(experiment)
    if again is not None:
        recompute.require_no_other(context, experiment)
        cell, seeds, sums = again
        recompute.require_processes(cell, experiment, given["processes"])
        recompute.require_data(cell, experiment, sums)
        return [attrs.evolve(cell, observe=tuple(given["observe"]))], seeds
    name, found = catalogue.find_experiment(experiment)
    overrides = catalogue.Overrides(rules=context.obj, **given)
    return catalogue.cells(name, found, scale, overrides), ()


@metalearn.command()
@JSON
def methods(as_json: bool) -> None:
    """The shipped methods, one line each."""
    from metalearn_benchmarks.experiments import catalogue

    rows = [
        {"method": name, "title": m.title, "start": m.start, "rule": m.rule, "source": m.source}
        for name, m in catalogue.methods().items()
    ]
    print_table(rows, as_json)


@metalearn.command()
@click.argument("names", metavar="[EXPERIMENT]...", nargs=-1)
@click.option("--scale", type=SCALE, default="small", show_default=True, help="How large they would be run.")
@click.option("--measure", is_flag=True, help="First time what was not timed on this machine: minutes.")
@JSON
def experiments(names: tuple[str, ...], scale: str, measure: bool, as_json: bool) -> None:
    """The shipped experiments, or EXPERIMENTs: what they reproduce, how many runs, about how long here."""
    from metalearn_benchmarks.cli import experiment_list

    found = experiment_list.found(names, scale)
    if measure:
        _measure(found, as_json)
    lines = experiment_list.lines(found)
    if as_json:
        print_table([line.as_data() for line in lines], as_json)
        return
    print_table([line.as_row() for line in lines], as_json)
    click.echo(experiment_list.about(lines, scale))


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


@metalearn.command()
@JSON
def families(as_json: bool) -> None:
    """The installed families of tasks, one line each."""
    from metalearn_core import task_families

    rows = [
        {"family": name, "distribution": entry.distribution, "options": ", ".join(entry.options())}
        for name, entry in task_families().items()
    ]
    print_table(rows, as_json)


for command in (archive, claims, data, plugins, report, rule_map, speed):
    metalearn.add_command(command)


def main() -> None:
    """The command's entry point: a user's mistake is one line and exit code 2."""
    try:
        metalearn(standalone_mode=False)
    except UsageError as error:
        _refuse(str(error))
    except click.ClickException as error:
        _refuse(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        sys.exit(EXIT_INTERRUPTED)


def _refuse(message: str) -> None:
    # the other processes that torchrun started on this machine would say the same
    if os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) == "0":
        click.echo(f"metalearn: {' '.join(message.split())}", err=True)
    sys.exit(EXIT_USAGE)
