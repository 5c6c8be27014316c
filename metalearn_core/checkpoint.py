"""Checkpoints: written whole or not at all, read without trusting them."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metalearn_core.errors import UsageError

FORMAT = 1
_UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write tensors and plain containers to `path` atomically: a reader sees the old or the new file.

    Raises UsageError where the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **payload}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"checkpoint {path}: cannot be written ({error})") from error


def save_together(payloads: Mapping[Path, dict[str, Any]]) -> None:
    """Write checkpoints of runs that go on together: afterwards all are new or, after a crash, can be.

    Each is written beside its place first, and moved there once all are written; `settle` ends what a
    crash in between has left. Raises UsageError where a folder cannot be written.
    """
    if len(payloads) > 1:
        for path, payload in payloads.items():
            save_checkpoint(_prepared(path), payload)
        settle(list(payloads))
    else:
        for path, payload in payloads.items():
            save_checkpoint(path, payload)


def settle(paths: Sequence[Path]) -> None:
    """Bring checkpoints of runs that go on together to one state: the last one saved whole."""
    prepared = [path for path in paths if _prepared(path).exists()]
    # they are prepared in order, and moved in order: with the last one there, all had been prepared
    if prepared and prepared[-1] == paths[-1]:
        for path in prepared:
            os.replace(_prepared(path), path)
    for path in prepared:
        _prepared(path).unlink(missing_ok=True)


def _prepared(path: Path) -> Path:
    return path.with_name(path.name + ".next")


def load_checkpoint(path: Path, contents: Collection[str]) -> dict[str, Any]:
    """Read a checkpoint that holds `contents`, tensors and plain containers only.

    Raises UsageError where the file is unreadable, damaged, foreign or of a newer format.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:  # torch does not look at the checksums
                raise zipfile.BadZipFile("a checksum does not fit")
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"checkpoint {path}: cannot be read ({reason}); move it away to start anew"
        ) from error
    if (
        not isinstance(payload, dict)
        or payload.get("format") != FORMAT
        or not payload.keys() >= set(contents)
    ):
        raise UsageError(
            f"checkpoint {path}: not of format {FORMAT}; it was written by something else or by"
            " another version; move it away to start anew"
        )
    return payload
