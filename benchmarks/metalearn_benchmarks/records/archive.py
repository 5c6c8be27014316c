"""The compact archive of records: many in one file, `NAME.records.tar.xz`, read wherever a DIR is read.

An archive is a tar file with the tree of DIR. Of each run it holds `experiment.toml` unchanged, so that any
seed can be computed again, and `result.json` in few digits. Of the scores it keeps those after T steps for
every task, which all tables and claims are computed from. Of the earlier steps it keeps the mean over test
tasks. Imports no torch.
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

from metalearn_benchmarks.host.folders import find_files, plain_name
from metalearn_benchmarks.records.cell_file import parse_cell
from metalearn_benchmarks.records.files import (
    EXPERIMENT,
    RESULT,
    DamagedError,
    read_bytes,
    replace_non_finite,
    write_atomically,
)
from metalearn_benchmarks.records.record import ARCHIVE_FORMAT, Record, parse_record
from metalearn_benchmarks.records.seal import seal, told_checkpoint
from metalearn_core.errors import UsageError

SUFFIX = ".records.tar.xz"
"""The end of an archive's name, by which it is found."""
PARTS = 5
"""Parts of a member's name: experiment, setting, method, seed and file."""
NOT_KEPT = ("scores", "format", "seal", "crc32")
"""Keys of a result that an archive has in another form."""
DIGITS, FINE_DIGITS = 3, 5
"""Digits of the scores of single tasks, and of everything else that is drawn."""
MAX_MEMBER_BYTES = 64 * 2**20
"""The largest member that is read. A record of a million test tasks has a tenth of it."""
MAX_UNPACKED_BYTES, MAX_MEMBERS = 2**29, 100_000
"""The largest archive that is read, unpacked: a thousand records have 20 MB."""
MAX_DICTIONARY_BYTES = 2**28
"""The most memory that unpacking may take for itself. The archives that are written take a quarter of it."""


@attrs.frozen(eq=False)
class ArchivedRun:
    """A run in an archive, with the contents of its two files.

    Args:
        folder: Where it would lie if the archive were a folder.
        relative_folder: The same relative to the archive: `<experiment>/<setting>/<method>/<seed>`.
        experiment: Its `experiment.toml`.
        result: Its `result.json`.
    """

    folder: Path
    relative_folder: PurePosixPath
    experiment: bytes
    result: bytes

    def cell(self) -> dict[str, Any]:
        """Parse what the run was asked for.

        Raises:
            DamagedError: It is no TOML.
        """
        return parse_cell(self.folder / EXPERIMENT, self.experiment)

    def record(self) -> Record:
        """Parse the record; raises what `records.record.parse_record` does."""
        record = parse_record(self.folder, self.result, lambda: self.experiment)
        own = _relative_folder(record)
        if PurePosixPath(*map(plain_name, self.relative_folder.parts)) != own:
            raise DamagedError(self.folder / EXPERIMENT, f"it is of {own} and lies elsewhere")
        return record


def find_archives(directory: Path) -> list[Path]:
    """Return the archives below a folder, or the path itself where it is an archive."""
    if directory.is_file():
        return [directory] if directory.name.endswith(SUFFIX) else []
    return find_files(directory, lambda name: name.endswith(SUFFIX))


def read_archived_runs(path: Path) -> list[ArchivedRun]:
    """Return every run of an archive, in its order.

    Raises:
        DamagedError: The file is no archive of records, or was cut off.
    """
    files: dict[PurePosixPath, dict[str, bytes]] = {}
    try:
        for name, data in _read_members(_unpacked(read_bytes(path))):
            if files.setdefault(name.parent, {}).setdefault(name.name, data) is not data:
                raise tarfile.TarError(f"member {name} is in it twice")
    # a header of tar may claim any size, or go on in another header, and so on
    except (tarfile.TarError, OverflowError, RecursionError, lzma.LZMAError, EOFError, ValueError) as error:
        raise DamagedError(path, f"not an archive of records, or cut off ({error})") from error
    found = []
    for relative_folder, contents in files.items():
        if contents.keys() != {EXPERIMENT, RESULT}:
            raise DamagedError(
                path, f"{relative_folder} in it must have {EXPERIMENT} and {RESULT}, it has {[*contents]}"
            )
        found.append(
            ArchivedRun(path / relative_folder, relative_folder, contents[EXPERIMENT], contents[RESULT])
        )
    return found


def _unpacked(data: bytes) -> io.BytesIO:
    """Unpack as much as an archive may have, and no more, whatever it says of itself."""
    found = b""
    while data:  # as a rule there is one stream
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DICTIONARY_BYTES)
        found += unpacker.decompress(data, max_length=MAX_UNPACKED_BYTES - len(found) + 1)
        if len(found) > MAX_UNPACKED_BYTES:
            raise lzma.LZMAError(
                f"unpacked it has more than {MAX_UNPACKED_BYTES} bytes, and no more are read"
            )
        if not unpacker.eof:
            raise EOFError("its end is missing")
        data = unpacker.unused_data.lstrip(b"\0")
    return io.BytesIO(found)


def _read_members(data: io.BytesIO) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(fileobj=data, mode="r:") as tar:
        for count, member in enumerate(tar):
            if count == MAX_MEMBERS:
                raise tarfile.TarError(f"it has more than {MAX_MEMBERS} members")
            if member.isdir():
                continue
            plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
            file = tar.extractfile(member) if plain and member.size <= MAX_MEMBER_BYTES else None
            if file is None:
                raise tarfile.TarError(
                    f"member {member.name!r} is no file of at most {MAX_MEMBER_BYTES} bytes"
                )
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or len(name.parts) != PARTS:
                raise tarfile.TarError(
                    f"member {member.name!r} is not <experiment>/<setting>/<method>/<seed>/<file>"
                )
            yield name, file.read()
        if data.getvalue()[tar.offset :].strip(b"\0"):  # tarfile takes a broken header for the end
            raise tarfile.TarError("what follows its last member is none")


def read_archives(directory: Path, warn: Callable[[str], None] | None = None) -> list[Record]:
    """Return the records of all archives below a folder.

    Args:
        directory: The folder, or an archive.
        warn: Called with one line for each archive that cannot be read. None: that is an error.
    """
    found: list[Record] = []
    for path in find_archives(directory):
        try:
            found += [run.record() for run in read_archived_runs(path)]
        except UsageError as error:
            if warn is None:
                raise
            warn(str(error))
    return found


def write_archive(found: Sequence[Record], path: Path) -> int:
    """Write records into one archive, as a whole or not at all. Equal records give equal bytes.

    Args:
        found: The records.
        path: The archive; its name must end in `SUFFIX`.

    Returns:
        The size of the archive in bytes.

    Raises:
        UsageError: The name lacks the suffix, or two records belong to one run.
        WriteError: The file cannot be written.
    """
    if not path.name.endswith(SUFFIX):
        raise UsageError(f"{path}: the name of an archive ends in {SUFFIX}, by which it is found; add it")
    by_folder: dict[PurePosixPath, Record] = {}
    for record in found:
        relative_folder = _relative_folder(record)
        if relative_folder in by_folder:
            raise UsageError(
                f"{by_folder[relative_folder].folder} and {record.folder} are the same run; leave one out"
            )
        by_folder[relative_folder] = record
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", format=tarfile.PAX_FORMAT) as tar:
        for name, data in _archive_members(by_folder):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    data = packed.getvalue()
    write_atomically(path, data)
    return len(data)


def _relative_folder(record: Record) -> PurePosixPath:
    names = (record.experiment, record.setting, record.method)
    return PurePosixPath(*map(plain_name, names), str(record.seed))


def _archive_members(by_folder: dict[PurePosixPath, Record]) -> Iterator[tuple[str, bytes]]:
    """Yield name and contents of each member. Similar files are neighbours, which compresses best."""
    archives = {_archive_of(record) for record in by_folder.values()} - {None}
    archived = {run.folder: run.experiment for path in archives if path for run in read_archived_runs(path)}
    for relative_folder, record in sorted(by_folder.items()):
        asked = archived.get(record.folder)
        yield (
            str(relative_folder / EXPERIMENT),
            read_bytes(record.folder / EXPERIMENT) if asked is None else asked,
        )
    for relative_folder, record in sorted(by_folder.items()):
        asked = archived.get(record.folder)
        text = json.dumps(compact_result(record), allow_nan=False, separators=(",", ":")).encode()
        experiment = read_bytes(record.folder / EXPERIMENT) if asked is None else asked
        yield str(relative_folder / RESULT), seal(text, experiment, told_checkpoint(record.result))


def _archive_of(record: Record) -> Path | None:
    """Return the archive that a record was read from, or None."""
    above = (path for path in record.folder.parents if path.name.endswith(SUFFIX))
    return next(above, None) if "archived" in record.result else None


def compact_result(record: Record) -> dict[str, Any]:
    """Return a result as an archive holds it; a result from an archive stays as it is."""
    of = {key: value for key, value in record.result.items() if key not in NOT_KEPT}
    families = list(record.result["scores"])
    if "archived" not in of:
        digest = hashlib.sha256(read_bytes(record.folder / RESULT)).hexdigest()
        of |= {
            "by_step": {name: record.result["scores"][name].mean(0).tolist() for name in families},
            "archived": {"digits": DIGITS, "sha256": digest},
        }
        for key in ("validations", "curves", "rule_response", "by_step"):
            of[key] = _round_to_digits(of.get(key), FINE_DIGITS)
    final = {name: _round_to_digits(record.final_on(name).tolist(), DIGITS) for name in families}
    plain: dict[str, Any] = replace_non_finite({"format": ARCHIVE_FORMAT, "final": final, **of})
    return plain


def _round_to_digits(value: Any, digits: int) -> Any:
    if isinstance(value, float) and np.isfinite(value):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: _round_to_digits(inner, digits) for key, inner in value.items()}
    return [_round_to_digits(inner, digits) for inner in value] if isinstance(value, list | tuple) else value
