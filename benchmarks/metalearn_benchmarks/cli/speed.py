"""`metalearn speed`: time this engine beside its peers, and show or draw the times."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.cli.support.options import JSON, RenamedOption, examples
from metalearn_benchmarks.host import terminal
from metalearn_benchmarks.host.exit_codes import EXIT_INTERRUPTED
from metalearn_benchmarks.host.terminal import echo, print_table, table


class Threads(click.IntRange):
    """A number of threads, or `all` for the number of cores."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert `all` to the number of cores."""
        from metalearn_benchmarks.host.machine import cores

        return super().convert(cores() if value == "all" else value, param, ctx)


def _axis(flags: str, kind: Any, text: str, default: str) -> Callable[[Any], Any]:
    shown = f"{text}; may be repeated. [default: {default}]"
    return click.option(*flags.split(), cls=RenamedOption, multiple=True, type=kind, help=shown)


@click.command(
    short_help="This engine timed beside its peers, on the same work.",
    epilog=examples("metalearn speed --method maml --meta-batch 25"),
)
@click.option("--learner", type=click.Choice(["mlp", "conv-4"]), default="mlp", show_default=True,
              help="Sine regression; or 5-way images, of which a setting takes minutes.")  # fmt: skip
@_axis(
    "--method --rule rule",
    click.Choice(["maml", "turtle", "lstm"]),
    "This method alone",
    "each; of conv-4 maml",
)
@_axis("--meta-batch --tasks tasks", click.IntRange(min=1), "Tasks of a meta-batch", "1, 25; of conv-4 1, 4")
@_axis("--steps", click.IntRange(min=0), "T", "5")
@_axis("--order", click.Choice(["first", "second"]), "Of the meta-gradient", "second")
@_axis("--threads", Threads(min=1), "CPU threads, a number or `all`", "1")
@_axis("--seeds", click.IntRange(min=1), "Seeds trained together", "1")
@_axis("--width", click.IntRange(min=1), "Of mlp's hidden layers, or conv-4's blocks", "40; of conv-4 32")
@_axis("--shots", click.IntRange(min=1), "Support images of a class, of conv-4", "1")
@_axis("--size", click.IntRange(min=16), "Pixels of an image's side, of conv-4; colour from 64 on", "28")
@_axis("--what", click.Choice(["meta-gradient", "outer step"]), "What is timed", "both; of conv-4 the first")
@click.option(
    "--peer", "-p", "peers", multiple=True, help="This peer alone; may be repeated. [default: each]"
)
@click.option("--whole", is_flag=True, help="The whole grid, 1 to 100 tasks, T to 10: it takes hours.")
@click.option("--seconds", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="For each peer and setting, after its first call.")  # fmt: skip
@click.option("--memory", is_flag=True, help="Peak resident memory too: of a call, beyond what is held"
              " between calls, and of a fresh process with all its imports and compiling.")  # fmt: skip
@click.option("--compile-times", is_flag=True, help="Too: seconds from the start of a fresh process until"
              " its first meta-gradient, with empty caches of compiled code, and once more.")  # fmt: skip
@click.option("--out", "--figure", "figure", cls=RenamedOption, metavar="FILE",
              type=click.Path(path_type=Path),
              help="Instead: draw the cost against tasks, T and n there; PNG, PDF or SVG.")  # fmt: skip
@JSON
def speed(
    learner: str, figure: Path | None, as_json: bool, peers: tuple[str, ...], what: tuple[str, ...],
    whole: bool, seconds: float, memory: bool, compile_times: bool, **given: Any,
) -> None:  # fmt: skip
    """Time a meta-gradient and an outer step: this engine beside its peers, on the same work, in one run."""
    from metalearn_benchmarks.speed.comparison import plan_comparison

    comparison = plan_comparison(
        given, figure, learner, peers=peers, quantities=what, whole=whole,
        seconds=seconds, memory=memory, compile_times=compile_times,
    )  # fmt: skip
    timings: list[Any] = []
    try:
        _time_all(comparison, timings, as_json)
    except KeyboardInterrupt:
        echo("stopped; what had been timed is shown", err=True)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        if as_json:
            print_table([timing.as_data() for timing in timings], as_json=True)
    if figure is not None:
        _draw_speed(timings, figure, as_json)


def _time_all(comparison: Any, timings: list[Any], quiet: bool) -> None:
    """Into `timings`, with a table for each setting under a live bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from metalearn_benchmarks.speed.timing import row

    console = terminal.console()
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as bars:
        bar = bars.add_task("", total=len(comparison.settings))

        def say(text: str) -> None:
            bars.update(bar, description=text)

        for setting in comparison.settings:
            found = list(comparison.timings(setting, say))
            timings += found
            bars.advance(bar)
            if not quiet:
                console.print(f"\n{setting}, n = {found[0].n}", style="bold")
                console.print(table([row(timing, comparison.extras) for timing in found]))


def _draw_speed(timings: list[Any], figure: Path, quiet: bool) -> None:
    from metalearn_benchmarks.plotting.rendering import render
    from metalearn_benchmarks.records.files import write_atomically
    from metalearn_benchmarks.speed.drawing import draw

    write_atomically(figure, render(draw(timings), figure.suffix.removeprefix("."), "speed"))
    echo(f"figure: {figure}", err=quiet)
