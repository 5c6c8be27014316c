"""The file `experiment.toml` of a run: what was asked for. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tomli_w

from metalearn_benchmarks.host.data_files import MAX_TOML_BYTES, MalformedError, parse_toml
from metalearn_benchmarks.records.contents import require_cell, require_place
from metalearn_benchmarks.records.files import EXPERIMENT, DamagedError, read_bytes, write_atomically


def read_cell(folder: Path) -> dict[str, Any] | None:
    """Return the cell in a run's folder, or None where there is none.

    Raises:
        DamagedError: Its `experiment.toml` is no TOML.
        UsageError: The file cannot be read.
    """
    text = read_cell_text(folder)
    return None if text is None else parse_cell(folder / EXPERIMENT, text)


def read_cell_text(folder: Path) -> bytes | None:
    """Return the contents of a run's `experiment.toml`, or None where there is none.

    Raises:
        UsageError: The file cannot be read.
    """
    path = folder / EXPERIMENT
    return read_bytes(path, MAX_TOML_BYTES) if path.exists() else None


def parse_cell(path: Path, text: bytes) -> dict[str, Any]:
    """Parse the contents of an `experiment.toml`.

    Args:
        path: The file, for the message.
        text: Its contents.

    Raises:
        DamagedError: The contents are no TOML.
    """
    try:
        return parse_toml(text)
    except MalformedError as error:
        raise DamagedError(path, f"cannot be read ({error})") from error


def require_own_cell(folder: Path) -> dict[str, Any]:
    """Check that a folder's `experiment.toml` is whole, and that of the run that the folder is named after.

    Returns:
        The cell.

    Raises:
        DamagedError: There is none, it is of another run, or a key is missing or wrong.
    """
    found = read_cell(folder)
    if found is None:
        raise DamagedError(folder / EXPERIMENT, "there is none")
    require_valid_cell(folder, found)
    read_seeds_together(folder)
    return found


def require_valid_cell(folder: Path, cell: dict[str, Any], placed: bool = True) -> None:
    """Check the contents of an `experiment.toml`, and where `placed`, that they belong to the folder.

    Raises:
        DamagedError: A key is missing or wrong, or they are of another run.
    """
    try:
        require_cell(cell)
        if placed:
            require_place(folder.absolute(), cell)
    except ValueError as error:
        raise DamagedError(folder / EXPERIMENT, str(error)) from error


def write_cell(folder: Path, cell: dict[str, Any]) -> None:
    """Write the `experiment.toml` of a run."""
    write_atomically(folder / EXPERIMENT, tomli_w.dumps(cell))


def read_seeds_together(folder: Path) -> tuple[int, ...]:
    """Return the seeds that the run in a folder was started with as one program, its own among them.

    A record that does not list them was started alone.

    Raises:
        DamagedError: The list is no list of seeds, or lacks the run's own; or the folder is of no seed.
    """
    if not re.fullmatch("[0-9]{1,19}", folder.name):
        raise DamagedError(folder / EXPERIMENT, f"its folder is named after no seed: {folder.name!r}")
    own = int(folder.name)
    seeds = (read_cell(folder) or {}).get("seeds_together", [own])
    if not isinstance(seeds, list) or own not in seeds or any(type(seed) is not int for seed in seeds):
        wanted = f"seeds_together must be a list of seeds with {own} in it"
        raise DamagedError(folder / EXPERIMENT, f"{wanted}, got {seeds!r}")
    return tuple(seeds)
