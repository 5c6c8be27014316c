"""`metalearn data prepare`: prepare a dataset of images from the files that a user has."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalearn_benchmarks.cli.data.output import PATH, SIZE, describe, progress_bar, store_row
from metalearn_benchmarks.cli.support.options import JSON, RenamedOption, examples
from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.exit_codes import EXIT_INTERRUPTED
from metalearn_benchmarks.host.terminal import echo, print_json
from metalearn_core.errors import UsageError

if TYPE_CHECKING:
    from metalearn_benchmarks.tasks.images.store.preparation import PreparedStore, ReportProgress


OWN_SIZE = 84
"""Height and width at which images of a user's own are prepared by default, in pixels."""


def _parts(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int, int] | None:
    """Return the parts for training, validation and test that `64/16/20` says."""
    if value is None:
        return None
    if not re.fullmatch(r"\d{1,6}/\d{1,6}/\d{1,6}", value):
        raise click.BadParameter(f"{value!r} is no A/B/C of three numbers, such as 64/16/20")
    train, validation, test = map(int, value.split("/"))
    return train, validation, test


@click.command(
    "prepare",
    epilog=examples(
        "metalearn data prepare cub CUB_200_2011.tgz --size 84",
        "metalearn data prepare my-leaves leaves --shares 60/20/20 --split-seed 1",
    ),
)
@click.argument("name")
@click.argument("path", type=PATH)
@click.option(
    "--size", type=SIZE, metavar="PIXELS",
    help="Height and width. [default: 84; Omniglot 28, CIFAR-FS and FC100 32]",
)  # fmt: skip
@click.option("--split", metavar="LIST", help="Which published split. [default: the usual one]")
@click.option(
    "--shares", callback=_parts, metavar="A/B/C",
    help="Of your own images: split the classes so for training, validation and test, whatever their folders"
    " say. [default: as folders or columns say, or 64/16/20]",
)  # fmt: skip
@click.option(
    "--split-seed", type=click.IntRange(min=0), metavar="N",
    help="Of your own images: the seed of the order in which classes are split. [default: 0]",
)  # fmt: skip
@click.option(
    "--out", "--to", "to", cls=RenamedOption, type=PATH, metavar="DIR",
    help="Where to, DIR/NAME/PIXELS. [default: $METALEARN_DATA, or the user's data folder]",
)  # fmt: skip
@JSON
def prepare_command(name: str, path: Path, to: Path | None, as_json: bool, **given: Any) -> None:
    """Read dataset NAME from PATH, a folder, an archive or a file, check that it is whole, and prepare it.

    What PATH is, is found by its content. docs/data.md says which datasets are known, and which forms are
    read. Under any other NAME your own images are prepared, and families have that name from then on.
    """
    from metalearn_benchmarks.tasks.images.store.conversion import LOSSES
    from metalearn_benchmarks.tasks.images.store.locations import data_home

    folder, make = _plan(name, path, to or data_home(), given)
    try:
        with progress_bar(as_json) as tell:
            made = make(tell)
    except KeyboardInterrupt:
        echo(f"stopped; what is prepared is kept in {folder}, the same command goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    for note in made.notes:
        echo(visible(f"note: {note}"), err=True)
    manifest = made.store.manifest
    if as_json:
        more = {"notes": list(made.notes), "already": made.already, "examples": dict(manifest.examples)}
        print_json({**store_row(made.store), **more})
        return
    for what, count in manifest.tally.items():
        loud = "warning: " if what in LOSSES else ""
        example = f", such as {manifest.examples[what]}" if what in manifest.examples else ""
        echo(visible(f"{loud}{count} images {what}{example}"), err=True)
    state = "already prepared" if made.already else "prepared"
    echo(f"{state}: {describe(made.store.manifest)}, in {made.store.folder}")


Make = Callable[["ReportProgress"], "PreparedStore"]
"""Prepares a dataset, and reports its progress."""


def _plan(name: str, path: Path, home: Path, given: dict[str, Any]) -> tuple[Path, Make]:
    """Return the folder of a store, and what prepares it: of a known dataset, or of the user's own."""
    from metalearn_benchmarks.tasks.images.datasets import datasets
    from metalearn_benchmarks.tasks.images.store.preparation import prepare

    known = datasets()
    if name not in known:
        return _plan_own(name, path, home, given)
    for option in ("shares", "split_seed"):
        if given[option] is not None:
            raise UsageError(
                f"--{option.replace('_', '-')}: the classes of {name} are split as published; leave it out,"
                " or choose another name"
            )
    dataset = known[name]
    chosen, size = dataset.split(given["split"]), given["size"] or dataset.size
    folder = home / dataset.prepared_name(chosen) / str(size)
    return folder, lambda tell: prepare(dataset, chosen, path, folder, size, tell)


def _plan_own(name: str, path: Path, home: Path, given: dict[str, Any]) -> tuple[Path, Make]:
    from metalearn_benchmarks.tasks.images.own.names import require_own_name
    from metalearn_benchmarks.tasks.images.own.preparation import prepare_own
    from metalearn_benchmarks.tasks.images.own.splitting import SHARES, Shares

    require_own_name(name)
    if given["split"] is not None:
        raise UsageError(f"--split: {name} has no published split; say --shares and --split-seed")
    asked = given["shares"] is not None or given["split_seed"] is not None
    shares = Shares(given["shares"] or SHARES, given["split_seed"] or 0, asked)
    size = given["size"] or OWN_SIZE
    folder = home / name / str(size)
    return folder, lambda tell: prepare_own(name, path, folder, size, shares, tell)
