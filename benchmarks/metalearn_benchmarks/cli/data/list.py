"""`metalearn data list`: what is prepared on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metalearn_benchmarks.cli.data.output import PATH, in_words, print_json, row
from metalearn_benchmarks.cli.support.options import JSON

if TYPE_CHECKING:
    pass


@click.command("list")
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
        print_json([row(each) for each in found])
        return
    for each in found:
        click.echo(f"{each.folder.parent.name}: {in_words(each.manifest)}, in {each.folder}")
    if not found:
        known = ", ".join(datasets())
        click.echo(f"nothing is prepared in {home}; `metalearn data prepare NAME PATH` knows {known}")
