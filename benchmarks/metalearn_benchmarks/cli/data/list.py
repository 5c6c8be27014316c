"""`metalearn data list`: list the datasets that are prepared on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from metalearn_benchmarks.cli.data.output import PATH, describe, store_row
from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.terminal import echo, print_json


@click.command("list", epilog=examples("metalearn data list"))
@click.argument("path", type=PATH, required=False)
@JSON
def list_command(path: Path | None, as_json: bool) -> None:
    """What is prepared, here or in PATH (what was given to --out)."""
    from metalearn_benchmarks.tasks.images.datasets import datasets
    from metalearn_benchmarks.tasks.images.store.locations import data_home
    from metalearn_benchmarks.tasks.images.store.preparation import find_stores

    home = path or data_home()
    prepared = find_stores(home)
    if as_json:
        print_json([store_row(store) for store in prepared])
        return
    for store in prepared:
        echo(f"{store.folder.parent.name}: {describe(store.manifest)}, in {store.folder}")
    if not prepared:
        known = ", ".join(datasets())
        echo(f"nothing is prepared in {home}; `metalearn data prepare NAME PATH` knows {known}")
