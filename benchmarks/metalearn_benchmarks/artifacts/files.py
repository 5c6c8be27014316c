"""The two files of an artifact, written and read.

`rule.safetensors` holds θ⁰ by the names of the learner's parameters (`theta.<name>`) and the rule's state
(`phi.<name>`). `card.json` says what they are. Each file holds a hash of the other, so that a pair that does
not belong together, or that was changed, is refused. Nothing in the files is ever run.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from metalearn_benchmarks.host.data_files import parse_json, read_file
from metalearn_benchmarks.records.files import write_atomically
from metalearn_core import UsageError

FORMAT = 1
MAX_CARD_BYTES = 2**24
"""The largest card that is read."""
CARD, TENSORS = "card.json", "rule.safetensors"
THETA, PHI = "theta.", "phi."


def write_artifact(folder: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write both files, each whole or not at all.

    Args:
        folder: The folder of the artifact.
        about: What the card says.
        tensors: θ⁰ and φ by their names.

    Returns:
        The card.

    Raises:
        UsageError: `about` cannot be written as JSON, or the files cannot be written.
    """
    kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    shapes = {name: [*tensor.shape] for name, tensor in kept.items()}
    plain = {"format": FORMAT, **about, "tensors": shapes}
    try:
        data = safetensors.torch.save(kept, {"card": _digest_of_card(plain)})
    except ValueError as error:
        raise UsageError(f"{folder}: what the run was asked for is no JSON ({error})") from error
    card = {**plain, "sha256": hashlib.sha256(data).hexdigest()}
    write_atomically(folder / TENSORS, data)
    write_atomically(folder / CARD, json.dumps(card, indent=1, ensure_ascii=False))
    return card


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card alone.

    Raises:
        UsageError: There is no card, or it has another format.
    """
    path = folder / CARD
    try:
        card = parse_json(read_file(path, MAX_CARD_BYTES))
        found = card["format"]
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder}: no artifact is in it ({CARD} is missing); `metalearn export RUN` writes one, and"
            " `metalearn zoo list` names those that are shipped"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not the card of an artifact ({error!r}); export the run again") from error
    if found != FORMAT:
        versions = card.get("versions")
        wrote = versions.get("metalearn-benchmarks") if isinstance(versions, dict) else None
        raise UsageError(
            f"{path}: it is of format {found!r} and this version reads {FORMAT}; install the"
            f" metalearn-benchmarks that wrote it, {wrote}"
        )
    return dict(card)


def read_artifact(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the card and the tensors of an artifact.

    Raises:
        UsageError: A file is missing, cannot be read, or was changed.
    """
    card, path = read_card(folder), folder / TENSORS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); it belongs beside {CARD}, export the run again"
        ) from error
    if hashlib.sha256(data).hexdigest() != card.pop("sha256", None):
        raise UsageError(f"{path}: not the file that {CARD} was written for; export the run again")
    try:
        tensors = safetensors.torch.load(data)
        (size,) = struct.unpack("<Q", data[:8])
        hash_of_card = parse_json(data[8 : 8 + size]).get("__metadata__", {}).get("card")
    except (SafetensorError, AttributeError, ValueError, KeyError, struct.error) as error:
        raise UsageError(f"{path}: not a safetensors file ({error}); export the run again") from error
    if hash_of_card != _digest_of_card(card):
        raise UsageError(f"{folder / CARD}: it was changed after the export; export the run again")
    return card, tensors


def _digest_of_card(card: Mapping[str, Any]) -> str:
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def installed_version(distribution: str) -> str:
    """Return the version of a distribution, or `unknown` where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
