"""The files of a record by name, read and written whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from metalearn_core import write_atomically as write_whole
from metalearn_core.errors import UsageError, writing

EXPERIMENT, RESULT, METRICS, CHECKPOINT, ERROR = (
    "experiment.toml", "result.json", "metrics.jsonl", "checkpoint.pt", "error.txt",
)  # fmt: skip


class DamagedError(UsageError):
    """A file of a record that says what it cannot: `path`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; move it away")
        self.path, self.reason = path, reason


class AnotherExperimentError(UsageError):
    """A DIR that holds runs with which those to be run must not stand in one table."""


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a whole file or none, and the folders above it; WriteError where that cannot be."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data.encode() if isinstance(data, str) else data)


def bytes_of(path: Path) -> bytes:
    """What is in a file; UsageError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:  # the file may be whole
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def null_for_not_finite(value: Any) -> Any:
    """A value for JSON, which has no NaN and no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: null_for_not_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_not_finite(inner) for inner in value]
    return value
