"""All records of a DIR, from its folders and from its archives. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from metalearn_benchmarks.records.archive import archives_in, read_archives
from metalearn_benchmarks.records.files import RESULT, bytes_of
from metalearn_benchmarks.records.record import Record, read_record
from metalearn_core.errors import UsageError


def read_records(directory: Path, left_out: Callable[[str], None] | None = None) -> list[Record]:
    """Every finished run below a folder, or in an archive, by experiment, setting, method and seed.

    A run that lies in a folder and, the same run, in an archive too is read once, from the folder.
    `left_out`: told in one line of each that is damaged or of a newer version; without it, that is an error.
    """
    if not directory.is_dir() and not archives_in(directory):
        raise UsageError(f"{directory}: there is no such folder, nor archive; give the --out of a run")
    found: list[Record] = []
    for path in sorted(directory.rglob(RESULT)):
        try:
            found.append(read_record(path.parent))
        except UsageError as error:
            if left_out is None:
                raise
            left_out(str(error))
    archived = read_archives(directory, left_out)
    if archived:
        here = {digest(record) for record in found}
        found += [record for record in archived if digest(record) not in here]
    return sorted(found, key=lambda r: (r.experiment, r.setting, r.method, r.seed))


def digest(record: Record) -> str:
    """The SHA-256 of the result as the run wrote it."""
    kept = record.result.get("archived")
    return kept["sha256"] if kept else hashlib.sha256(bytes_of(record.folder / RESULT)).hexdigest()
