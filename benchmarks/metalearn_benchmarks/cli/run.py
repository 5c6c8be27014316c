"""`metalearn run`: run what is missing of an experiment in a folder, from where it stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.cli.support.backends import (
    observers_take_stdout,
    process_group,
    ray_cluster,
    require_one_backend,
    require_possible_here,
    torchrun_processes,
)
from metalearn_benchmarks.cli.support.completion import complete_experiment, complete_method, complete_rule
from metalearn_benchmarks.cli.support.options import JSON, SCALE, examples, toml_option
from metalearn_benchmarks.cli.support.records import write_and_print_report, write_report_as_data
from metalearn_benchmarks.host import terminal
from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from metalearn_benchmarks.host.terminal import echo, print_json
from metalearn_core.errors import UsageError


class RuleCommand(click.Command):
    """A command in which every `--option` belongs to the `--rule` or `--meta-gradient` before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `--rule R --option k=v ...` and `--meta-gradient` out of the arguments, in their order.

        The rules with their options, and the outer gradients with theirs, are left in `ctx.obj`.
        """
        rest: list[str] = []
        named: dict[str, list[tuple[str, dict[str, Any]]]] = {"--rule": [], "--meta-gradient": []}
        options: dict[str, Any] | None = None
        words = iter(args)
        for word in words:
            name, equals, value = word.partition("=")
            if name not in (*named, "--option"):
                rest.append(word)
                continue
            given = value if equals else next(words, None)
            if given is None and ctx.resilient_parsing:  # the shell asks what could follow
                continue
            if given is None:
                raise UsageError(f"{name} needs a value")
            if name in named:
                options = {}
                named[name].append((given, options))
            elif options is None:
                raise UsageError(
                    f"--option {given}: it belongs to a rule or an outer gradient; say --rule NAME or"
                    " --meta-gradient NAME before it"
                )
            else:
                options.update([toml_option(given)])
        if len(named["--meta-gradient"]) > 1:
            both = " and ".join(name for name, _ in named["--meta-gradient"])
            raise UsageError(f"--meta-gradient: a run has one, got {both}")
        ctx.obj = named["--rule"], next(iter(named["--meta-gradient"]), None)
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


@click.command(
    cls=RuleCommand,
    short_help="Train and test methods: what is missing, from where it stopped.",
    epilog=examples(
        "metalearn run sine", "metalearn run sine --scale smoke -m maml --rule lslr --option inner_lr=0.02"
    ),
)
@click.argument("experiment", shell_complete=complete_experiment)
@click.option(
    "--method",
    "-m",
    "methods",
    multiple=True,
    shell_complete=complete_method,
    help="Run this method alone; may be repeated.",
)
@click.option("--all", "every_method", is_flag=True, help="Run all methods, not those of the default alone.")
@click.option(
    "--rule",
    "_rule",
    metavar="R",
    shell_complete=complete_rule,
    help="Add a row with an installed rule; may be repeated.",
)
@click.option(
    "--meta-gradient", "_meta_gradient", metavar="NAME",
    help="Meta-train by this outer gradient, such as reptile, in rows of their own.",
)  # fmt: skip
@click.option(
    "--option", "_option", metavar="K=V",
    help="An option of the --rule or --meta-gradient before it; V is TOML.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="ROW",
    help="Run this row alone, METHOD or SETTING/METHOD as tables have it, * for anything; may be repeated.",
)  # fmt: skip
@click.option("--scale", type=SCALE, help="How large to run it. [default: the experiment's; small for most]")
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
@JSON
@click.pass_context
def run(
    context: click.Context,
    /,
    experiment: str,
    scale: str | None,
    workers: int | None,
    address: str | None,
    together: int | tuple[int, ...] | None,
    out: Path | None,
    as_json: bool,
    _rule: None,
    _option: None,
    _meta_gradient: None,
    **given: Any,
) -> None:
    """Run EXPERIMENT, a shipped name or a TOML file: what is missing in DIR, from where it stopped.

    The experiment.toml of a record is a file too: that one run is computed again, as it was.
    """
    from metalearn_benchmarks.cli.support.progress import Display
    from metalearn_benchmarks.host.machine import cores
    from metalearn_benchmarks.runs.runner import run_experiment

    processes = torchrun_processes()
    require_one_backend(workers, address, processes)
    taken = observers_take_stdout(given["observe"], address, as_json)
    console = terminal.console(stderr=taken or as_json)
    cells, recorded_seeds = _find_cells(context, experiment, scale, {**given, "processes": processes})
    together = recorded_seeds or together
    if address is None:
        require_possible_here(cells[0], workers, processes, recorded=bool(recorded_seeds))
    directory = out or Path("results", cells[0].scale)
    if workers is None:
        alone = cells[0].device == "cpu" and processes == 1
        workers = max(cores() // cells[0].threads, 1) if alone else 1
    try:
        with (
            process_group(cells) as group,
            ray_cluster(address) as cluster,
            Display(console, len(cells)) as display,
        ):
            outcome = run_experiment(cells, directory, display, workers, together, cluster, group)
    except KeyboardInterrupt:
        echo(f"stopped; everything is saved in {directory}, the same command goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    code = _tell(outcome, cells, directory, None if as_json else console)
    if code:
        sys.exit(code)


def _tell(outcome: Any, cells: list[Any], directory: Path, console: Any | None) -> int:
    """Print what came out, on a console or, without one, as JSON; return the exit code."""
    import attrs

    wanted = len(cells) - outcome.not_run
    some = len(outcome.failed) < wanted
    if console is None:
        report = (
            write_report_as_data(directory) if some else {"report": None, "tables": [], "over_streams": []}
        )
        print_json({"directory": str(directory), "runs": len(cells), **attrs.asdict(outcome), **report})
    elif some:
        write_and_print_report(directory, console)
    problems = [*outcome.skipped_settings, *outcome.failed, *outcome.diverged]
    for line in problems:
        echo(visible(f"metalearn: {line}"), err=True)
    if not problems:
        return 0
    return EXIT_USAGE if outcome.user_errors == wanted else EXIT_FAILED


def _find_cells(
    context: click.Context, experiment: str, scale: str | None, given: dict[str, Any]
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
    every_method = given.pop("every_method")
    rules, outer = context.obj
    overrides = catalogue.Overrides(rules=rules, meta_gradient=outer, **given)
    scale, overrides = catalogue.default_run(found, scale, overrides, every_method)
    return catalogue.cells(name, found, scale, overrides), ()
