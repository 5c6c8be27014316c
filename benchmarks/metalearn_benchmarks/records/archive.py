"""A compact archive: many records in one file, `NAME.records.tar.xz`, read wherever a DIR is. No torch.

It is DIR's own tree in a tar: of each run its `experiment.toml` as it was, so that any seed can be computed
again, and its `result.json` in few digits. Of the scores it keeps those after T steps, task by task, which
every table and claim is made of; of the steps before, the mean over test tasks.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
import numpy as np

from metalearn_benchmarks.records.files import (
    EXPERIMENT,
    RESULT,
    DamagedError,
    bytes_of,
    null_for_not_finite,
    write_atomically,
)
from metalearn_benchmarks.records.record import ARCHIVED, Record, cell_of, record_of
from metalearn_core.errors import UsageError

SUFFIX = ".records.tar.xz"
DIGITS, FINE_DIGITS = 3, 5
"""Of scores, task by task, and of all else that is drawn."""
LARGEST = 64 * 2**20
"""Bytes of a member, at most: a record of a million test tasks has a tenth."""


@attrs.frozen(eq=False)
class ArchivedRun:
    """A run in an archive: both of its files.

    Args:
        folder: where it would lie if the archive were a folder.
        place: the same, seen from the archive: `<experiment>/<setting>/<method>/<seed>`.
    """

    folder: Path
    place: PurePosixPath
    experiment: bytes
    result: bytes

    def cell(self) -> dict[str, Any]:
        """What the run was asked for; DamagedError."""
        return cell_of(self.folder / EXPERIMENT, self.experiment)

    def record(self) -> Record:
        """The finished run; errors as `records.read_record`."""
        return record_of(self.folder, self.result, self.cell)


def archives_in(directory: Path) -> list[Path]:
    """The archives below a folder; an archive itself; none where nothing is."""
    if directory.is_file():
        return [directory] if directory.name.endswith(SUFFIX) else []
    return sorted(path for path in directory.rglob(f"*{SUFFIX}") if path.is_file())


def runs_in(path: Path) -> list[ArchivedRun]:
    """Every run of an archive, in its order; DamagedError where it is none, or cut off."""
    files: dict[PurePosixPath, dict[str, bytes]] = {}
    try:
        for name, data in _members(io.BytesIO(bytes_of(path))):
            files.setdefault(name.parent, {})[name.name] = data
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise DamagedError(path, f"not an archive of records, or cut off ({error})") from error
    found = []
    for place, both in files.items():
        if both.keys() != {EXPERIMENT, RESULT}:
            raise DamagedError(path, f"{place} in it must have {EXPERIMENT} and {RESULT}, it has {[*both]}")
        found.append(ArchivedRun(path / place, place, both[EXPERIMENT], both[RESULT]))
    return found


def _members(data: io.BytesIO) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(fileobj=data, mode="r:xz") as tar:
        for member in tar:
            if member.isdir():
                continue
            file = tar.extractfile(member) if member.isfile() and member.size <= LARGEST else None
            if file is None:
                raise tarfile.TarError(f"member {member.name!r} is no file of at most {LARGEST} bytes")
            yield PurePosixPath(member.name), file.read()


def read_archives(directory: Path, left_out: Callable[[str], None] | None = None) -> list[Record]:
    """The records of all archives below a folder; `left_out` as in `records.read_records`."""
    found: list[Record] = []
    for path in archives_in(directory):
        try:
            found += [kept.record() for kept in runs_in(path)]
        except UsageError as error:
            if left_out is None:
                raise
            left_out(str(error))
    return found


def write_archive(found: Sequence[Record], path: Path) -> int:
    """Write records into one file, whole or not at all; its bytes. The same records give the same bytes.

    Raises:
        UsageError: for a name without the suffix, for two records of one run, and where the disk refuses.
    """
    if not path.name.endswith(SUFFIX):
        raise UsageError(f"{path}: the name of an archive ends in {SUFFIX}, by which it is found; add it")
    places: dict[PurePosixPath, Record] = {}
    for record in found:
        place = PurePosixPath(record.experiment, record.setting, record.method, str(record.seed))
        if place in places:
            raise UsageError(f"{places[place].folder} and {record.folder} are the same run; leave one out")
        places[place] = record
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", format=tarfile.PAX_FORMAT) as tar:
        for name, data in _files(places):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    data = packed.getvalue()
    write_atomically(path, data)
    return len(data)


def _files(places: dict[PurePosixPath, Record]) -> Iterator[tuple[str, bytes]]:
    """Like beside like, which compresses best: the requests first, then the results."""
    archives = {_archive_of(record) for record in places.values()} - {None}
    archived = {kept.folder: kept.experiment for path in archives if path for kept in runs_in(path)}
    for place, record in sorted(places.items()):
        asked = archived.get(record.folder)
        yield str(place / EXPERIMENT), bytes_of(record.folder / EXPERIMENT) if asked is None else asked
    for place, record in sorted(places.items()):
        yield (
            str(place / RESULT),
            json.dumps(compact(record), allow_nan=False, separators=(",", ":")).encode(),
        )


def _archive_of(record: Record) -> Path | None:
    """The archive that a record was read from."""
    above = (path for path in record.folder.parents if path.name.endswith(SUFFIX))
    return next(above, None) if "archived" in record.result else None


def compact(record: Record) -> dict[str, Any]:
    """A result as an archive keeps it; what came from an archive stays as it is."""
    of = {key: value for key, value in record.result.items() if key not in ("scores", "crc32", "format")}
    families = list(record.result["scores"])
    if "archived" not in of:
        digest = hashlib.sha256(bytes_of(record.folder / RESULT)).hexdigest()
        of |= {
            "by_step": {name: record.result["scores"][name].mean(0).tolist() for name in families},
            "archived": {"digits": DIGITS, "sha256": digest},
        }
        for key in ("validations", "curves", "rule_response", "by_step"):
            of[key] = _in_digits(of.get(key), FINE_DIGITS)
    final = {name: _in_digits(record.final_on(name).tolist(), DIGITS) for name in families}
    plain: dict[str, Any] = null_for_not_finite({"format": ARCHIVED, "final": final, **of})
    return plain


def _in_digits(value: Any, digits: int) -> Any:
    if isinstance(value, float) and np.isfinite(value):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: _in_digits(inner, digits) for key, inner in value.items()}
    return [_in_digits(inner, digits) for inner in value] if isinstance(value, list | tuple) else value
