"""What the commands on datasets share: options, a store in words and as data, and a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalearn_benchmarks.host.escape import visible

if TYPE_CHECKING:
    from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
    from metalearn_benchmarks.tasks.images.store.manifest import Manifest
    from metalearn_benchmarks.tasks.images.store.preparation import ReportProgress


PATH = click.Path(path_type=Path)

SIZE = click.IntRange(min=8, max=1024)


def store_row(store: ImageStore) -> dict[str, Any]:
    """Return what a store holds as plain data."""
    from metalearn_benchmarks.tasks.images.store.manifest import SPLITS

    manifest = store.manifest
    return {
        "name": store.folder.parent.name, "dataset": manifest.name, "split": manifest.split,
        "size": manifest.size, "channels": manifest.channels, "images": manifest.images,
        "classes": {split: len(store.classes(split)) for split in SPLITS},
        "tally": dict(manifest.tally), "sha256": manifest.sha256, "folder": str(store.folder),
    }  # fmt: skip


def describe(manifest: Manifest) -> str:
    """Return what a manifest holds in one line."""
    from metalearn_benchmarks.tasks.images.store.manifest import SPLITS

    splits = [each.split for each in manifest.classes]
    parts = "/".join(str(splits.count(split)) for split in SPLITS)
    return (
        f"{manifest.images:,} images of {len(splits)} classes ({parts} by {manifest.split}),"
        f" {manifest.size}x{manifest.size}x{manifest.channels}"
    )


def doubts(manifest: Manifest) -> list[str]:
    """Return what cannot be checked in a store of an earlier version, and what that may have lost."""
    unbound = "prepared by an earlier version: no checksum says which rows belong to which class"
    return [*manifest.doubts, *([] if manifest.checksum else [unbound])]


@contextmanager
def progress_bar(quiet: bool) -> Iterator[ReportProgress]:
    """Show a progress bar on a terminal, and nothing elsewhere or where `quiet`.

    Yields:
        The function that receives the progress: what is done, how much of it, and of how much.
    """
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
        yield lambda what, done, total: bars.update(
            bar, description=visible(what), completed=done, total=total
        )
