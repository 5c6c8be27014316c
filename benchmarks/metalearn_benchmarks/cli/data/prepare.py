"""`metalearn data prepare`: prepare a dataset of images from the files that a user has."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from metalearn_benchmarks.cli.data.output import PATH, SIZE, describe, progress_bar, store_row
from metalearn_benchmarks.cli.support.options import JSON, RenamedOption, examples
from metalearn_benchmarks.host.exit_codes import EXIT_INTERRUPTED
from metalearn_benchmarks.host.terminal import echo, print_json


@click.command("prepare", epilog=examples("metalearn data prepare cub CUB_200_2011.tgz --size 84"))
@click.argument("name")
@click.argument("path", type=PATH)
@click.option(
    "--size", type=SIZE, metavar="PIXELS",
    help="Height and width. [default: 84; Omniglot 28, CIFAR-FS and FC100 32]",
)  # fmt: skip
@click.option("--split", metavar="LIST", help="Which published split. [default: the usual one]")
@click.option(
    "--out", "--to", "to", cls=RenamedOption, type=PATH, metavar="DIR",
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
    from metalearn_benchmarks.tasks.images.store.conversion import LOSSES
    from metalearn_benchmarks.tasks.images.store.locations import data_home
    from metalearn_benchmarks.tasks.images.store.preparation import prepare

    dataset = find_dataset(name)
    chosen = dataset.split(split)
    size = size or dataset.size
    folder = (to or data_home()) / dataset.prepared_name(chosen) / str(size)
    try:
        with progress_bar(as_json) as tell:
            made = prepare(dataset, chosen, path, folder, size, tell)
    except KeyboardInterrupt:
        echo(f"stopped; what is prepared is kept in {folder}, the same command goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    for note in made.notes:
        echo(f"note: {note}", err=True)
    manifest = made.store.manifest
    if as_json:
        more = {"notes": list(made.notes), "already": made.already, "examples": dict(manifest.examples)}
        print_json({**store_row(made.store), **more})
        return
    for what, count in manifest.tally.items():
        loud = "warning: " if what in LOSSES else ""
        example = f", such as {manifest.examples[what]}" if what in manifest.examples else ""
        echo(f"{loud}{count} images {what}{example}", err=True)
    state = "already prepared" if made.already else "prepared"
    echo(f"{state}: {describe(made.store.manifest)}, in {folder}")
