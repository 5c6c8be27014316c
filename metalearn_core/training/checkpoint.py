"""Checkpoints: written whole or not at all, read without trusting them."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from metalearn_core.errors import CheckpointError, UsageError, writing
from metalearn_core.training.files import write_atomically

FORMAT = 1
_UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write tensors and plain containers to `path` atomically: a reader sees the old or the new file.

    Raises WriteError where the folder cannot be written.
    """
    file = io.BytesIO()
    with writing(path):
        torch.save({"format": FORMAT, **payload}, file)
    write_atomically(path, file.getbuffer())


def load_checkpoint(path: Path, contents: Collection[str]) -> dict[str, Any]:
    """Read a checkpoint that holds `contents`, tensors and plain containers only.

    Raises CheckpointError where the file is damaged or no such checkpoint; UsageError where it cannot be
    read at all, or is of a newer format.
    """
    if path.exists() and not path.is_file():  # a pipe would wait for somebody who writes into it
        raise CheckpointError(path, "it is no regular file")
    try:
        file = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise UsageError(f"checkpoint {path}: cannot be read ({error.strerror})") from error
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:  # torch does not look at the checksums
                raise zipfile.BadZipFile("a checksum does not fit")
        file.seek(0)
        payload: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(path, f"cannot be read ({_in_own_words(error)})") from error
    found = payload.get("format") if isinstance(payload, dict) else None
    if type(found) is int and found > FORMAT:
        raise UsageError(
            f"checkpoint {path}: of format {found}, and this version reads {FORMAT}: use the newer one that"
            " wrote it, or move it away to start anew"
        )
    if found != FORMAT or not payload.keys() >= set(contents):
        raise CheckpointError(path, f"not of format {FORMAT}: something else wrote it")
    return payload


def _in_own_words(error: Exception) -> str:
    """Why a file could not be read. Torch's own words for what is no tensor advise to trust the file."""
    lines = str(error).strip().splitlines()
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        return "it holds something other than tensors and plain containers, which might run as a program"
    return lines[0] if lines else type(error).__name__
