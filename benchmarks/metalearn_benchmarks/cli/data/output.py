"""What the commands on datasets print: a store in words and as data, and a live bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from metalearn_benchmarks.tasks.images.store.manifest import Manifest
    from metalearn_benchmarks.tasks.images.store.preparation import ReportProgress
    from metalearn_benchmarks.tasks.images.store.store import ImageStore


PATH = click.Path(path_type=Path)

SIZE = click.IntRange(min=8, max=1024)


def row(store: ImageStore) -> dict[str, Any]:
    """A store, for programs."""
    from metalearn_benchmarks.tasks.images.store.manifest import SPLITS

    manifest = store.manifest
    return {
        "name": store.folder.parent.name, "dataset": manifest.name, "split": manifest.split,
        "size": manifest.size, "channels": manifest.channels, "images": manifest.images,
        "classes": {split: len(store.classes(split)) for split in SPLITS},
        "tally": dict(manifest.tally), "sha256": manifest.sha256, "folder": str(store.folder),
    }  # fmt: skip


def in_words(manifest: Manifest) -> str:
    """A manifest in a line."""
    from metalearn_benchmarks.tasks.images.store.manifest import SPLITS

    splits = [each.split for each in manifest.classes]
    parts = "/".join(str(splits.count(split)) for split in SPLITS)
    return (
        f"{manifest.images:,} images of {len(splits)} classes ({parts} by {manifest.split}),"
        f" {manifest.size}x{manifest.size}x{manifest.channels}"
    )


def print_json(what: Any) -> None:
    """Print plain data as JSON on standard output."""
    import json

    click.echo(json.dumps(what, indent=1, ensure_ascii=False))


@contextmanager
def telling(quiet: bool) -> Iterator[ReportProgress]:
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
