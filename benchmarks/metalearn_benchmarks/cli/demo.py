"""`metalearn demo`: trained rules adapt to sine waves that they have not seen, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host import terminal
from metalearn_benchmarks.host.terminal import echo, print_json, table

WIDTH = 80
"""Columns of a plot, at most."""


@click.command(
    short_help="Trained rules adapt to unseen sine waves, in seconds.",
    epilog=examples("metalearn demo", "metalearn demo --seed 7 --out seven.svg"),
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=13, show_default=True, help="Which waves are drawn."
)
@click.option("--waves", "tasks", type=click.IntRange(min=1, max=10_000), default=200, show_default=True,
              help="How many waves the errors are of.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("metalearn-demo.png"), show_default=True,
              metavar="FILE", help="The picture: PNG, PDF or SVG.")  # fmt: skip
@JSON
def demo(seed: int, tasks: int, out: Path, as_json: bool) -> None:
    """Trained rules adapt to sine waves that they have not seen: curves here, and a picture.

    Each wave is five points of A sin(x + φ). A rule makes five updates of a small network on them, and is
    measured on fifty other points of the wave. Nothing is trained: the rules are shipped.
    """
    from metalearn_benchmarks.artifacts.demonstration import demonstrate
    from metalearn_benchmarks.artifacts.drawing import LEGEND, as_characters, draw
    from metalearn_benchmarks.artifacts.zoo import shipped
    from metalearn_benchmarks.plotting.rendering import render
    from metalearn_benchmarks.records.files import write_atomically
    from metalearn_core.errors import UsageError

    ending = out.suffix.removeprefix(".").lower()
    if ending not in ("png", "pdf", "svg"):
        raise UsageError(f"--out {out}: a picture is .png, .pdf or .svg")
    shown = [demonstrate(name, seed, tasks) for name in shipped()]
    write_atomically(out, render(draw(shown), ending, "demo"))
    if as_json:
        print_json(
            {"seed": seed, "tasks": tasks, "picture": str(out), "rules": [one.as_data() for one in shown]}
        )
        return
    console = terminal.console()
    for one in shown:
        echo(f"{one.title}, the first wave")
        echo("\n".join(as_characters(one, min(console.width, WIDTH))))
    echo(f"{LEGEND}\n")
    console.print(table([_row(one) for one in shown]))
    echo(f"\nmean squared error over {tasks} waves that no rule has seen; --seed draws others")
    echo(f"picture: {out}")


def _row(shown: Any) -> dict[str, str]:
    errors = shown.errors.mean(0)
    steps = len(errors) - 1
    return {
        "rule": shown.title,
        "before": f"{errors[0]:.3f}",
        **({"after 1 step": f"{errors[1]:.3f}"} if steps > 1 else {}),
        f"after {steps} steps": f"{errors[-1]:.3f}",
        "load it in Python": f'load_rule("{shown.name}")',
    }
