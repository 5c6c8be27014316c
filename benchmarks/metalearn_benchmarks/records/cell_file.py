"""The file `experiment.toml` of a run: what was asked for. Imports no torch."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from metalearn_benchmarks.records.files import (
    EXPERIMENT,
    DamagedError,
    read_bytes,
    write_atomically,
)


def read_cell(folder: Path) -> dict[str, Any] | None:
    """Return the cell in a run's folder, or None where there is none.

    Raises:
        DamagedError: Its `experiment.toml` is no TOML.
        UsageError: The file cannot be read.
    """
    path = folder / EXPERIMENT
    if not path.exists():
        return None
    return parse_cell(path, read_bytes(path))


def parse_cell(path: Path, text: bytes) -> dict[str, Any]:
    """Parse the contents of an `experiment.toml`.

    Args:
        path: The file, for the message.
        text: Its contents.

    Raises:
        DamagedError: The contents are no TOML.
    """
    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise DamagedError(path, f"cannot be read ({error})") from error


def require_complete_cell(folder: Path) -> None:
    """Check that a folder's `experiment.toml` says which run it belongs to, and which seeds trained with it.

    Raises:
        DamagedError: There is none, or a key is missing or wrong.
    """
    found, wanted = (
        read_cell(folder),
        ("experiment", "setting", "name", "seed", "family", "learner", "method"),
    )
    missing = [key for key in wanted if key not in (found or {})]
    if missing:
        reason = "there is none" if found is None else f"it lacks the key {missing[0]!r}"
        raise DamagedError(folder / EXPERIMENT, reason)
    read_seeds_together(folder)


def write_cell(folder: Path, cell: dict[str, Any]) -> None:
    """Write the `experiment.toml` of a run."""
    write_atomically(folder / EXPERIMENT, tomli_w.dumps(cell))


def read_seeds_together(folder: Path) -> tuple[int, ...]:
    """Return the seeds that the run in a folder was started with as one program, its own among them.

    A record that does not list them was started alone.

    Raises:
        DamagedError: The list is no list of seeds, or lacks the run's own.
    """
    own = int(folder.name)
    seeds = (read_cell(folder) or {}).get("seeds_together", [own])
    if not isinstance(seeds, list) or own not in seeds or any(type(seed) is not int for seed in seeds):
        wanted = f"seeds_together must be a list of seeds with {own} in it"
        raise DamagedError(folder / EXPERIMENT, f"{wanted}, got {seeds!r}")
    return tuple(seeds)
