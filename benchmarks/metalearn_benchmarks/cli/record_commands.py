"""`metalearn report`, `claims` and `archive`: what there is to be done with records. Heavy imports wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.host import terminal
from metalearn_benchmarks.host.terminal import JSON
from metalearn_core.errors import UsageError

DIRECTORY = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


@click.command()
@DIRECTORY
@click.option(
    "--statistics", type=click.Choice(["t", "bootstrap", "paper"]), default="t", show_default=True,
    help="How 95 % intervals are made: Student's t over seeds; a BCa bootstrap over seeds and test tasks;"
    " or as the paper's program does, without outliers.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Where to. [default: DIR/report; of an archive, `report` beside it]",
)  # fmt: skip
def report(directory: Path, statistics: str, out: Path | None) -> None:
    """Tables, figures and one self-contained report.html of the records in DIR, a folder or an archive."""
    show_report(directory, terminal.console(), statistics, out)


@click.command()
@DIRECTORY
@JSON
def claims(directory: Path, as_json: bool) -> None:
    """Every claim of the paper against the records in DIR: holds, does not hold, or too little evidence.

    The exit code is 0 whatever the verdicts are. The rules that decide are in paper/claims.toml of this
    package; runs below the paper's scale decide nothing.
    """
    from metalearn_benchmarks.claims import text
    from metalearn_benchmarks.claims.rules import claim_rules
    from metalearn_benchmarks.claims.verdicts import decide_all

    found, _ = _records(directory)
    _require_some(found, directory)
    verdicts = decide_all(claim_rules(), found)
    if as_json:
        import json

        click.echo(json.dumps(text.as_data(verdicts), indent=1, ensure_ascii=False))
    else:
        terminal.console().print(text.Overview(verdicts))


@click.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="The archive, NAME.records.tar.xz. It may be one of the DIRs: what it has is kept.",
)  # fmt: skip
def archive(directories: tuple[Path, ...], out: Path) -> None:
    """Keep the records in DIRs, folders or archives, in one compact file.

    Report, claims and run read it wherever they read a folder. Scores after T steps are kept task by task in
    three digits, those of the steps before as means. `tar xf FILE` lays the records out as folders again.
    """
    from metalearn_benchmarks.records.archive import write_archive
    from metalearn_benchmarks.records.reading import digest

    found: list[Any] = []
    for directory in directories:
        some, left_out = _records(directory)
        if left_out:
            raise UsageError(f"{directory}: {len(left_out)} of its records cannot be read; mend or move them")
        kept = {digest(record) for record in found}
        found += [record for record in some if digest(record) not in kept]
    if not found:
        raise UsageError(f"{', '.join(map(str, directories))}: no finished run to archive")
    size = write_archive(found, out)
    click.echo(f"{out}: {len(found)} records, {size / 1024:.0f} KiB")


def show_report(directory: Path, console: Any, statistics: str = "t", out: Path | None = None) -> None:
    """Write the report of a DIR and show its tables; UsageError where there is no record."""
    from metalearn_benchmarks.report import tables
    from metalearn_benchmarks.report.page import across_families, write_report

    found, left_out = _records(directory)
    begun = _require_some(found, directory)
    results = tables.result_tables([*found, *across_families(found)], statistics)
    for result in results:
        console.print(tables.for_terminal(result))
    folder = directory if directory.is_dir() else directory.parent
    page = write_report(found, out or folder / "report", begun, left_out, statistics, results)
    console.print(f"report: {page}", soft_wrap=True)


def _require_some(found: list[Any], directory: Path) -> int:
    """UsageError where there is no record; how many runs were begun and have none."""
    from metalearn_benchmarks.records import record as records

    begun = len(list(records.unfinished(directory)))
    if not found:
        raise UsageError(f"{directory}: no finished run is in it ({begun} begun); run an experiment first")
    return begun


def _records(directory: Path) -> tuple[list[Any], list[str]]:
    """The finished runs in DIR; what cannot be read is left out, and told of in a line each."""
    from metalearn_benchmarks.records.reading import read_records

    left_out: list[str] = []
    found = read_records(directory, left_out.append)
    for line in left_out:
        click.echo(f"metalearn: {' '.join(line.split())} (left out)", err=True)
    return found, left_out
