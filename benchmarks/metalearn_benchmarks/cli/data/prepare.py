"""`metalearn data prepare`: a dataset of images, read from what a user has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metalearn_benchmarks.cli.data.output import PATH, SIZE, in_words, print_json, row, telling
from metalearn_benchmarks.cli.support.options import JSON
from metalearn_benchmarks.host.exit_codes import EXIT_INTERRUPTED

if TYPE_CHECKING:
    pass


@click.command("prepare")
@click.argument("name")
@click.argument("path", type=PATH)
@click.option(
    "--size", type=SIZE, metavar="PIXELS",
    help="Height and width. [default: 84; Omniglot 28, CIFAR-FS and FC100 32]",
)  # fmt: skip
@click.option("--split", metavar="LIST", help="Which published split. [default: the usual one]")
@click.option(
    "--to", type=PATH, metavar="DIR",
    help="Where to, DIR/NAME/PIXELS. [default: $METALEARN_DATA, or the user's data folder]",
)  # fmt: skip
@JSON
def prepare_command(
    name: str, path: Path, size: int | None, split: str | None, to: Path | None, as_json: bool
) -> None:
    """Read dataset NAME from PATH, a folder, an archive or a pickle, check that it is whole, and prepare it.

    What PATH is, is found by its content. docs/data.md says which forms are read, and which splits there are.
    """
    from metalearn_benchmarks.tasks.images.datasets import find_dataset
    from metalearn_benchmarks.tasks.images.store.preparation import prepare
    from metalearn_benchmarks.tasks.images.store.store import data_home

    dataset = find_dataset(name)
    chosen = dataset.split(split)
    size = size or dataset.size
    folder = (to or data_home()) / dataset.prepared_name(chosen) / str(size)
    try:
        with telling(as_json) as tell:
            made = prepare(dataset, chosen, path, folder, size, tell)
    except KeyboardInterrupt:
        click.echo(f"stopped; what is prepared is kept in {folder}, the same command goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json({**row(made.store), "notes": list(made.notes), "already": made.already})
        return
    for what, count in made.store.manifest.tally.items():
        click.echo(f"{count} images {what}", err=True)
    told = "already prepared" if made.already else "prepared"
    click.echo(f"{told}: {in_words(made.store.manifest)}, in {folder}")
