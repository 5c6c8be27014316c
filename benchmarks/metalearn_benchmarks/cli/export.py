"""`metalearn export`: write a trained rule as an artifact."""

from __future__ import annotations

from pathlib import Path

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.terminal import echo, print_json


@click.command(
    short_help="A trained rule as two files that load anywhere.",
    epilog=examples("metalearn export results/paper/sine/sine-5-shot/turtle/0 --out turtle"),
)
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
        print_json({"folder": str(folder), "card": card})
    else:
        rule, size = card["rule"]["name"], card["layout"]["size"]
        echo(f"artifact: {folder} (rule {rule}, n = {size}, best of task {card['training']['position']})")
