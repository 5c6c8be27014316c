"""`metalearn data verify`: check that prepared images are unchanged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metalearn_benchmarks.cli.data.output import PATH, SIZE, describe, doubts, progress_bar, store_row
from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.exit_codes import EXIT_INTERRUPTED
from metalearn_benchmarks.host.terminal import echo, print_json
from metalearn_core.errors import unknown

if TYPE_CHECKING:
    from metalearn_benchmarks.tasks.images.store.image_store import ImageStore


@click.command("verify", epilog=examples("metalearn data verify cub"))
@click.argument("name")
@click.argument("path", type=PATH, required=False)
@click.option("--size", type=SIZE, metavar="PIXELS", help="Which one. [default: each that is there]")
@JSON
def verify_command(name: str, path: Path | None, size: int | None, as_json: bool) -> None:
    """Check that prepared dataset NAME still is what was prepared: checksum, classes, split, counts.

    PATH: what was given to --out, where that was given. NAME as `metalearn data list` has it.
    """
    from metalearn_benchmarks.tasks.images.datasets import datasets
    from metalearn_benchmarks.tasks.images.store.locations import data_home
    from metalearn_benchmarks.tasks.images.store.preparation import verify_store

    prepared = _open_stores(name, path or data_home(), size)
    try:
        with progress_bar(as_json) as tell:
            for store in prepared:
                verify_store(store, datasets(), tell)
                for doubt in doubts(store.manifest):
                    echo(f"note: {store.folder}: {doubt}", err=True)
                if not as_json:
                    echo(f"whole: {describe(store.manifest)}, in {store.folder}")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    if as_json:
        print_json([store_row(store) for store in prepared])


def _open_stores(name: str, home: Path, size: int | None) -> list[ImageStore]:
    """The stores of a name, of every size or of one; UsageError where there is none, or one is broken."""
    from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
    from metalearn_benchmarks.tasks.images.store.manifest import MANIFEST

    if size is not None and name in {path.name for path in home.glob("*")}:
        return [ImageStore.open(home / name / str(size), changed=True)]
    folders = sorted(path.parent for path in home.glob(f"*/*/{MANIFEST}"))
    found = [ImageStore.open(folder, changed=True) for folder in folders if folder.parent.name == name]
    if not found:
        raise unknown(f"prepared dataset in {home}", name, {folder.parent.name for folder in folders})
    return found
