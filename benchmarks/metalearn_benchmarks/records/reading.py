"""Reading all records of a DIR, from its folders and from its archives. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from metalearn_benchmarks.host.folders import find_files
from metalearn_benchmarks.records.archive import find_archives, read_archives
from metalearn_benchmarks.records.files import RESULT, read_bytes
from metalearn_benchmarks.records.record import Record, read_record
from metalearn_core.errors import UsageError


def read_records(directory: Path, warn: Callable[[str], None] | None = None) -> list[Record]:
    """Read every finished run below a folder, or in an archive.

    A run that is in a folder and in an archive is read once, from the folder.

    Args:
        directory: The folder, or an archive.
        warn: Called with one line for each record that is damaged or of a newer version.
            None: that is an error.

    Returns:
        The records, sorted by experiment, setting, method and seed.

    Raises:
        UsageError: There is no such folder; or, without `warn`, a record cannot be read.
    """
    if not directory.is_dir() and not find_archives(directory):
        raise UsageError(f"{directory}: there is no such folder, nor archive; give the --out of a run")
    found: list[Record] = []
    for path in find_files(directory, RESULT.__eq__):
        try:
            found.append(read_record(path.parent))
        except UsageError as error:
            if warn is None:
                raise
            warn(str(error))
    return _each_once([*found, *read_archives(directory, warn)], warn)


def _each_once(found: Iterable[Record], warn: Callable[[str], None] | None) -> list[Record]:
    """Return the records in their order, a run that is there several times once.

    Two results of one run cannot both stand in a table: the second is an error, or left out with a line.
    """
    by_run: dict[tuple[str, str, str, int], Record] = {}
    for record in found:
        run = (record.experiment, record.setting, record.method, record.seed)
        first = by_run.setdefault(run, record)
        if first is record or result_digest(first) == result_digest(record):
            continue
        message = f"{first.folder} and {record.folder} are two results of the same run; move one away"
        if warn is None:
            raise UsageError(message)
        warn(message)
    return [by_run[run] for run in sorted(by_run)]


def result_digest(record: Record) -> str:
    """Return the SHA-256 of the result as the run wrote it, also for a record from an archive."""
    archived = record.result.get("archived")
    return archived["sha256"] if archived else hashlib.sha256(read_bytes(record.folder / RESULT)).hexdigest()
