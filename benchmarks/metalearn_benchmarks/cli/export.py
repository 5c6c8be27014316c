"""`metalearn export`: write a trained rule as an artifact."""

from __future__ import annotations

from pathlib import Path

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.terminal import echo, print_json


@click.command(
    short_help="A trained rule as two files that load anywhere.",
    epilog=examples(
        "metalearn export results/paper/sine/sine-5-shot/turtle/0 --out turtle",
        "metalearn export results/paper/sine/sine-5-shot/turtle/0 --zoo my-turtle",
    ),
)
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where to. [default: RUN/artifact]")
@click.option(
    "--zoo", "entry", metavar="NAME",
    help="Make it an entry of your zoo, for load_rule(NAME): of a finished run from a clean commit. With"
    " --out, the zoo is in that folder.",
)  # fmt: skip
@JSON
def export(run_folder: Path, out: Path | None, entry: str | None, as_json: bool) -> None:
    """The trained rule and initialisation of RUN as safetensors and a JSON card.

    RUN is a record's folder, DIR/<experiment>/<setting>/<method>/<seed>, of a finished or validated run.
    """
    from metalearn_benchmarks.artifacts.zoo import own_home
    from metalearn_benchmarks.runs.export import export_run, export_to_zoo

    if entry is None:
        folder, card = export_run(run_folder, out)
    else:
        folder, card = export_to_zoo(run_folder, entry, out or own_home())
    if as_json:
        print_json({"folder": str(folder), "card": card})
    else:
        rule, size = card["rule"]["name"], card["layout"]["size"]
        echo(f"artifact: {folder} (rule {rule}, n = {size}, best of task {card['training']['position']})")
