"""`metalearn archive`: write many records into one compact file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.cli.support.records import readable_records
from metalearn_benchmarks.host.terminal import echo, print_json
from metalearn_core.errors import UsageError


@click.command(
    short_help="Many records in one compact file.",
    epilog=examples("metalearn archive results/paper --out mine.records.tar.xz"),
)
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="The archive, NAME.records.tar.xz. It may be one of the DIRs: what it has is kept.",
)  # fmt: skip
@JSON
def archive(directories: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Keep the records in DIRs, folders or archives, in one compact file.

    Report, claims and run read it wherever they read a folder. Scores after T steps are kept task by task in
    three digits, those of the steps before as means. `tar xf FILE` lays the records out as folders again.
    """
    from metalearn_benchmarks.records.archive import write_archive
    from metalearn_benchmarks.records.reading import result_digest

    found: list[Any] = []
    for directory in directories:
        some, left_out = readable_records(directory)
        if left_out:
            raise UsageError(f"{directory}: {len(left_out)} of its records cannot be read; mend or move them")
        kept = {result_digest(record) for record in found}
        found += [record for record in some if result_digest(record) not in kept]
    if not found:
        raise UsageError(f"{', '.join(map(str, directories))}: no finished run to archive")
    size = write_archive(found, out)
    if as_json:
        print_json({"archive": str(out), "records": len(found), "bytes": size})
    else:
        echo(f"{out}: {len(found)} record{'s' if len(found) != 1 else ''}, {size / 1024:.0f} KiB")
