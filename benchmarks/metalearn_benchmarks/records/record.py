"""Records: what a finished run leaves on disk. Imports no torch."""

from __future__ import annotations

import json
import math
import tomllib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import tomli_w
from numpy.typing import NDArray

from metalearn_benchmarks.records.files import (
    ERROR,
    EXPERIMENT,
    RESULT,
    DamagedError,
    bytes_of,
    null_for_not_finite,
    write_atomically,
)
from metalearn_core.errors import UsageError

FORMAT, ARCHIVED = 1, 2
"""Of `result.json`: as a run writes it, and as an archive keeps it (see `archive.py`)."""


@attrs.frozen(eq=False)
class Record:
    """A finished run: where it lies, what was asked for, what came out."""

    folder: Path
    cell: dict[str, Any]
    result: dict[str, Any]

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.cell["experiment"])

    @property
    def setting(self) -> str:
        """Family, ways and shots."""
        return str(self.cell["setting"])

    @property
    def method(self) -> str:
        """Name of the method, with whatever was overridden in it."""
        return str(self.cell["name"])

    @property
    def title(self) -> str:
        """The method's name for people."""
        given, own = self.cell["method"]["title"], self.method.partition(",")
        return str(given if not own[2] or given == self.method else f"{given} ({own[2]})")

    @property
    def score(self) -> str:
        """What the scores are, in words."""
        return str(self.result["score"])

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is the better one."""
        return bool(self.result["higher_is_better"])

    @property
    def seed(self) -> int:
        """The seed of the initial weights."""
        return int(self.cell["seed"])

    @property
    def steps(self) -> int:
        """T at test."""
        family = self.cell["family"]["name"]
        kept = self.result.get("by_step", {}).get(family)
        return len(self._rows(None)[0] if kept is None else kept) - 1

    @property
    def by_step(self) -> NDArray[np.float64]:
        """The mean score over the test tasks of the family trained on after 0 ... T steps: `[T + 1]`."""
        kept = self.result.get("by_step", {}).get(self.cell["family"]["name"])
        return self._rows(None).mean(0) if kept is None else np.asarray(kept, dtype=np.float64)

    @property
    def final(self) -> NDArray[np.float64]:
        """The score after T steps, per test task: `[tasks]`."""
        return self.final_on(None)

    def final_on(self, family: str | None) -> NDArray[np.float64]:
        """The same for the test tasks of a family of that name; None: the family trained on."""
        return self._rows(family)[:, -1]

    def _rows(self, family: str | None) -> NDArray[np.float64]:
        rows = self.result["scores"][family or self.cell["family"]["name"]]
        return np.asarray(rows, dtype=np.float64)  # no copy of what was read from a file


def read_cell(folder: Path) -> dict[str, Any] | None:
    """What a run's folder was asked for, or None where there is nothing; DamagedError, UsageError."""
    path = folder / EXPERIMENT
    if not path.exists():
        return None
    return cell_of(path, bytes_of(path))


def cell_of(path: Path, text: bytes) -> dict[str, Any]:
    """What the text of an `experiment.toml` asks for; DamagedError names its path."""
    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise DamagedError(path, f"cannot be read ({error})") from error


def require_whole(folder: Path) -> None:
    """DamagedError unless the folder's `experiment.toml` says which run it is of, and of which seeds."""
    found, wanted = (
        read_cell(folder),
        ("experiment", "setting", "name", "seed", "family", "learner", "method"),
    )
    missing = [key for key in wanted if key not in (found or {})]
    if missing:
        reason = "there is none" if found is None else f"it lacks the key {missing[0]!r}"
        raise DamagedError(folder / EXPERIMENT, reason)
    seeds_together(folder)


def write_cell(folder: Path, cell: dict[str, Any]) -> None:
    """Write what a run is asked for."""
    write_atomically(folder / EXPERIMENT, tomli_w.dumps(cell))


def seeds_together(folder: Path) -> tuple[int, ...]:
    """The seeds that a run was begun with as one program, its own among them; its own where none are told."""
    own = int(folder.name)
    seeds = (read_cell(folder) or {}).get("seeds_together", [own])
    if not isinstance(seeds, list) or own not in seeds or any(type(seed) is not int for seed in seeds):
        wanted = f"seeds_together must be a list of seeds with {own} in it"
        raise DamagedError(folder / EXPERIMENT, f"{wanted}, got {seeds!r}")
    return tuple(seeds)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write what came out; from then on the run is finished. Its last key is a checksum of all before it."""
    plain = null_for_not_finite({"format": FORMAT, **result})
    text = json.dumps(plain, allow_nan=False)[:-1].encode()
    write_atomically(folder / RESULT, text + _seal(text))
    (folder / ERROR).unlink(missing_ok=True)  # of an earlier attempt


def _seal(text: bytes) -> bytes:
    return b', "crc32": "%08x"}' % zlib.crc32(text)


def is_finished(folder: Path) -> bool:
    """Whether the run has its result."""
    return (folder / RESULT).exists()


def is_sealed(folder: Path) -> bool:
    """Whether the run's result has this version's format and its checksum: it need not be read whole."""
    data = bytes_of(folder / RESULT)
    text = data[: -len(_seal(b""))]
    return data.startswith(b'{"format": %d, ' % FORMAT) and data == text + _seal(text)


def read_record(folder: Path) -> Record:
    """One finished run; DamagedError names the file, UsageError one that cannot be read here."""
    return record_of(folder, bytes_of(folder / RESULT), lambda: read_cell(folder))


def record_of(folder: Path, text: bytes, read_cell: Callable[[], dict[str, Any] | None]) -> Record:
    """A finished run from the text of its result, and from what it was asked for; errors as `read_record`."""
    path = folder / RESULT
    try:
        result = json.loads(text)
    except ValueError as error:
        raise DamagedError(path, f"cannot be read ({error})") from error
    found = result.get("format") if isinstance(result, dict) else None
    if type(found) is int and found > ARCHIVED:
        raise UsageError(
            f"{path}: a record of format {found}, and this version reads up to {ARCHIVED}: another version of"
            " metalearn wrote it, a newer one"
        )
    if found not in (FORMAT, ARCHIVED):
        raise DamagedError(path, f"not a record of format {FORMAT}, nor one of another version")
    cell = read_cell()
    if cell is None:
        raise DamagedError(path, f"there is no {EXPERIMENT} beside it")
    record = Record(folder, cell, result)
    try:
        # a thousand records of a paper's size are a gigabyte as lists, and a tenth of it so
        rows_of = result["scores"] if found == FORMAT else _as_rows(result.pop("final"))
        result["scores"] = {name: _packed(rows) for name, rows in rows_of.items()}
        lengths = (len(record.final), len(record.score), len(record.title))
        numbers = (record.seed, record.steps, record.higher_is_better, *lengths)
        whole = all(math.isfinite(x) for x in (*numbers, result["seconds"])) and "diverged" in result
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DamagedError(path, f"damaged ({error!r})") from error
    if not whole or {"experiment", "setting", "name"} - cell.keys():
        raise DamagedError(path, f"damaged, it or {EXPERIMENT} lacks a key")
    return record


def _as_rows(final: dict[str, list[float | None]]) -> dict[str, list[list[float | None]]]:
    """An archive keeps the score after T steps alone."""
    return {name: [[score] for score in scores] for name, scores in final.items()}


def _packed(rows: Any) -> NDArray[np.float64]:
    """Scores as an array `[tasks, T + 1]`, a null as NaN; ValueError, TypeError for anything else."""
    array = np.array(rows, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"scores must be a row for each test task, got an array of shape {array.shape}")
    return array


def unfinished(directory: Path) -> Iterator[Path]:
    """The folders of runs that were begun and have no result."""
    for path in sorted(directory.rglob(EXPERIMENT)):
        if not is_finished(path.parent):
            yield path.parent
