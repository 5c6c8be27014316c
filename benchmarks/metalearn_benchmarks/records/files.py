"""The file names of a record, and reading and writing such files as a whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from metalearn_benchmarks.host.data_files import MAX_JSON_BYTES, MalformedError, read_file
from metalearn_core import write_atomically as write_whole
from metalearn_core.errors import UsageError, writing

EXPERIMENT, RESULT, METRICS, CHECKPOINT, ERROR = (
    "experiment.toml", "result.json", "metrics.jsonl", "checkpoint.pt", "error.txt",
)  # fmt: skip


class DamagedError(UsageError):
    """A file of a record that is damaged.

    Args:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; move it away")
        self.path, self.reason = path, reason


class AnotherExperimentError(UsageError):
    """A DIR holds runs that must not stand in one table with those to be run."""


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing, and create the folders above it.

    Raises:
        WriteError: The file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data.encode() if isinstance(data, str) else data)


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Return the contents of a file of a record.

    Args:
        path: The file.
        limit: The largest size, in bytes.

    Raises:
        DamagedError: It is no regular file, or is larger than the limit.
        UsageError: The file cannot be read. It may be intact, so this is no DamagedError.
    """
    try:
        return read_file(path, limit)
    except MalformedError as error:
        raise DamagedError(path, f"cannot be read ({error})") from error
    except OSError as error:  # the file may be whole
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def replace_non_finite(value: Any) -> Any:
    """Return a copy of nested data with None for NaN and infinity, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: replace_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(inner) for inner in value]
    return value
