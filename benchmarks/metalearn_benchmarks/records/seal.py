"""The seal of a result: what shows that it was not changed, and which files it belongs to.

The last keys of a sealed `result.json` are `seal` and `crc32`. `seal` holds the SHA-256 of the
`experiment.toml`, of the checkpoint and of the log that the result was made with. `crc32` is a checksum of
all the text before it, the seal among it. Seals of earlier versions lack the log, earlier records have the
checksum alone, and those in archives of earlier versions have neither: they are read as they are. Imports no
torch.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from pathlib import Path
from typing import Any

from metalearn_benchmarks.records.files import (
    CHECKPOINT,
    EXPERIMENT,
    METRICS,
    RESULT,
    DamagedError,
)

VERSION = 1
_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}\s*\Z')
_SEAL = re.compile(
    rb', "seal": \{"version": %d, "experiment": "([0-9a-f]{64})", "checkpoint": (?:null|"([0-9a-f]{64})")'
    rb'(?:, "log": "([0-9a-f]{64})")?\}\Z' % VERSION
)
_LONGEST_END = 400
"""Bytes of the end of a text in which its checksum is looked for; a seal is shorter."""


def seal(text: bytes, experiment: bytes, checkpoint: str | None, log: str | None = None) -> bytes:
    """Return a JSON table with its seal and its checksum as the last keys.

    Args:
        text: The table, as JSON.
        experiment: The contents of the `experiment.toml` that it belongs to.
        checkpoint: The SHA-256 of the checkpoint that it was made from; None where there is none.
        log: The SHA-256 of the `metrics.jsonl` beside it; None where there is none.
    """
    held = b"null" if checkpoint is None else b'"%s"' % checkpoint.encode()
    told = b'{"version": %d, "experiment": "%s", "checkpoint": %s' % (VERSION, _digest(experiment), held)
    told += b"" if log is None else b', "log": "%s"' % log.encode()
    sealed = text[:-1] + b', "seal": ' + told + b"}"
    return sealed + b', "crc32": "%08x"}' % zlib.crc32(sealed)


def is_whole(text: bytes, experiment: bytes) -> bool:
    """Return whether a result has a valid checksum and no other `experiment.toml`, without parsing it."""
    before = _checked(text)
    if before is None:
        return False
    found = _seal_at_end(before)
    return found is None or found[1] == _digest(experiment)


def changed_files(folder: Path) -> list[DamagedError]:
    """Return an error for the checkpoint and the log of a finished run, where it is not the sealed one.

    A file that is not there is no error: the result, which must be whole, needs neither.
    """
    with (folder / RESULT).open("rb") as file:
        file.seek(-min(2 * _LONGEST_END, file.seek(0, 2)), 2)
        end = file.read()
    found = _seal_at_end(end[: end.rfind(b', "crc32": ')])
    told = {} if found is None else {CHECKPOINT: found[2], METRICS: found[3]}
    return [
        _not_the_sealed_one(folder / name)
        for name, digest in told.items()
        if digest and file_digest(folder / name) not in (None, digest.decode())
    ]


def require_whole(folder: Path, text: bytes, result: dict[str, Any], experiment: bytes) -> None:
    """Check a result against its checksum and its seal, as far as it has them.

    Args:
        folder: The run's folder, for the message.
        text: The contents of its `result.json`.
        result: The same, parsed.
        experiment: The contents of its `experiment.toml`.

    Raises:
        DamagedError: The result was changed, or `experiment.toml` is not the one that it was made with.
    """
    sealed = "seal" in result
    if (sealed or "crc32" in result) and _checked(text) is None:
        raise DamagedError(folder / RESULT, "it was changed after it was written: its checksum does not fit")
    if not sealed:
        return  # an earlier version wrote it
    found = result["seal"]
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise DamagedError(folder / RESULT, f"its seal is {found!r:.80}, and this version reads {VERSION}")
    if found.get("experiment") != _digest(experiment).decode():
        raise DamagedError(
            folder / EXPERIMENT, f"it is not the one that {RESULT} beside it was made with, or it was changed"
        )


def require_own_checkpoint(folder: Path, result: dict[str, Any]) -> None:
    """Check that a finished run's checkpoint is the one that its result was made from.

    Raises:
        DamagedError: It is another one, or it was changed. Results of earlier versions do not tell.
    """
    wanted = told_checkpoint(result)
    if wanted is not None and file_digest(folder / CHECKPOINT) != wanted:
        raise _not_the_sealed_one(folder / CHECKPOINT)


def _not_the_sealed_one(path: Path) -> DamagedError:
    made = "made from" if path.name == CHECKPOINT else "made with"
    return DamagedError(path, f"it is not the one that {RESULT} beside it was {made}, or it was changed")


def told_checkpoint(result: dict[str, Any]) -> str | None:
    """Return the SHA-256 of the checkpoint that a result was made from, where it tells."""
    found: str | None = result.get("seal", {}).get("checkpoint")
    return found


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a regular file, or None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(text: bytes) -> bytes | None:
    """Return the text before its checksum, or None where it has none that fits."""
    found = _CHECKSUM.search(text, max(len(text) - _LONGEST_END, 0))
    if found is None:
        return None
    before = text[: found.start()]
    return before if zlib.crc32(before) == int(found[1], 16) else None


def _seal_at_end(text: bytes) -> re.Match[bytes] | None:
    return _SEAL.search(text, max(len(text) - _LONGEST_END, 0))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
