"""`metalearn data`: datasets of images, prepared once and checked. Heavy imports wait for a command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalearn_benchmarks.host.terminal import EXIT_INTERRUPTED, JSON
from metalearn_core.errors import unknown

if TYPE_CHECKING:
    from metalearn_benchmarks.tasks.images.store.preparation import Tell
    from metalearn_benchmarks.tasks.images.store.store import ImageStore, Manifest

PATH = click.Path(path_type=Path)
SIZE = click.IntRange(min=8, max=1024)


@click.group()
def data() -> None:
    """Datasets of images on this machine: prepare one from what you have, check it, list what is there."""


@data.command("prepare")
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
        _print_json({**row(made.store), "notes": list(made.notes), "already": made.already})
        return
    for what, count in made.store.manifest.tally.items():
        click.echo(f"{count} images {what}", err=True)
    told = "already prepared" if made.already else "prepared"
    click.echo(f"{told}: {in_words(made.store.manifest)}, in {folder}")


@data.command("verify")
@click.argument("name")
@click.argument("path", type=PATH, required=False)
@click.option("--size", type=SIZE, metavar="PIXELS", help="Which one. [default: each that is there]")
@JSON
def verify_command(name: str, path: Path | None, size: int | None, as_json: bool) -> None:
    """Check that prepared dataset NAME still is what was prepared: checksum, classes, split, counts.

    PATH: what was given to --to, where that was given. NAME as `metalearn data list` has it.
    """
    from metalearn_benchmarks.tasks.images.datasets import datasets
    from metalearn_benchmarks.tasks.images.store.preparation import verify
    from metalearn_benchmarks.tasks.images.store.store import data_home

    found = _prepared(name, path or data_home(), size)
    try:
        with telling(as_json) as tell:
            for each in found:
                verify(each, datasets(), tell)
                if not as_json:
                    click.echo(f"whole: {in_words(each.manifest)}, in {each.folder}")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    if as_json:
        _print_json([row(each) for each in found])


def _prepared(name: str, home: Path, size: int | None) -> list[ImageStore]:
    """The stores of a name, of every size or of one; UsageError where there is none, or one is broken."""
    from metalearn_benchmarks.tasks.images.store.store import MANIFEST, ImageStore

    if size is not None and (home / name).is_dir():
        return [ImageStore.open(home / name / str(size))]
    folders = sorted(path.parent for path in home.glob(f"*/*/{MANIFEST}"))
    found = [ImageStore.open(folder) for folder in folders if folder.parent.name == name]
    if not found:
        raise unknown(f"prepared dataset in {home}", name, {folder.parent.name for folder in folders})
    return found


@data.command("list")
@click.argument("path", type=PATH, required=False)
@JSON
def list_command(path: Path | None, as_json: bool) -> None:
    """What is prepared, here or in PATH (what was given to --to)."""
    from metalearn_benchmarks.tasks.images.datasets import datasets
    from metalearn_benchmarks.tasks.images.store.preparation import stores
    from metalearn_benchmarks.tasks.images.store.store import data_home

    home = path or data_home()
    found = stores(home)
    if as_json:
        _print_json([row(each) for each in found])
        return
    for each in found:
        click.echo(f"{each.folder.parent.name}: {in_words(each.manifest)}, in {each.folder}")
    if not found:
        known = ", ".join(datasets())
        click.echo(f"nothing is prepared in {home}; `metalearn data prepare NAME PATH` knows {known}")


def row(store: ImageStore) -> dict[str, Any]:
    """A store, for programs."""
    from metalearn_benchmarks.tasks.images.store.store import SPLITS

    manifest = store.manifest
    return {
        "name": store.folder.parent.name, "dataset": manifest.name, "split": manifest.split,
        "size": manifest.size, "channels": manifest.channels, "images": manifest.images,
        "classes": {split: len(store.classes(split)) for split in SPLITS},
        "tally": dict(manifest.tally), "sha256": manifest.sha256, "folder": str(store.folder),
    }  # fmt: skip


def in_words(manifest: Manifest) -> str:
    """A manifest in a line."""
    from metalearn_benchmarks.tasks.images.store.store import SPLITS

    splits = [each.split for each in manifest.classes]
    parts = "/".join(str(splits.count(split)) for split in SPLITS)
    return (
        f"{manifest.images:,} images of {len(splits)} classes ({parts} by {manifest.split}),"
        f" {manifest.size}x{manifest.size}x{manifest.channels}"
    )


def _print_json(what: Any) -> None:
    import json

    click.echo(json.dumps(what, indent=1, ensure_ascii=False))


@contextmanager
def telling(quiet: bool) -> Iterator[Tell]:
    """A live bar on a terminal; elsewhere nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        bar = bars.add_task("", total=None)
        yield lambda what, done, total: bars.update(bar, description=what, completed=done, total=total)
