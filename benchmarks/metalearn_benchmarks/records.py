"""Records: what a finished run leaves on disk. Imports no torch."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import tomli_w
from numpy.typing import NDArray

from metalearn_core.errors import UsageError

FORMAT = 1
EXPERIMENT, RESULT, METRICS, CHECKPOINT = (
    "experiment.toml", "result.json", "metrics.jsonl", "checkpoint.pt",
)  # fmt: skip


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a whole file or none: a reader sees the old or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # the folder may be none
            temporary.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot be written ({error.strerror}); use another --out") from error


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
        return len(self._rows(None)[0]) - 1

    @property
    def scores(self) -> NDArray[np.float64]:
        """Of the family trained on: `[tasks, T + 1]`, a column per inner step 0 ... T; NaN for a null."""
        return self._rows(None)

    @property
    def final(self) -> NDArray[np.float64]:
        """The score after T steps, per test task: `[tasks]`."""
        return self.final_on(None)

    def final_on(self, family: str | None) -> NDArray[np.float64]:
        """The same for the test tasks of a family of that name; None: the family trained on."""
        return self._rows(family)[:, -1]

    def _rows(self, family: str | None) -> NDArray[np.float64]:
        packed: NDArray[np.float64] = self.result["scores"][family or self.cell["family"]["name"]]
        return packed


def read_cell(folder: Path) -> dict[str, Any] | None:
    """What a run's folder was asked for, or None where there is nothing."""
    path = folder / EXPERIMENT
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); move its folder away") from error


def write_cell(folder: Path, cell: dict[str, Any]) -> None:
    """Write what a run is asked for."""
    write_atomically(folder / EXPERIMENT, tomli_w.dumps(cell))


def seeds_together(folder: Path) -> tuple[int, ...]:
    """The seeds that a run was begun with as one program, its own among them; its own where none are told."""
    own = int(folder.name)
    seeds = (read_cell(folder) or {}).get("seeds_together", [own])
    if not isinstance(seeds, list) or own not in seeds or any(type(seed) is not int for seed in seeds):
        raise UsageError(
            f"{folder / EXPERIMENT}: seeds_together must be a list of seeds with {own} in it, got {seeds!r};"
            " move its folder away"
        )
    return tuple(seeds)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write what came out; from then on the run is finished."""
    plain = _null_for_not_finite({"format": FORMAT, **result})
    write_atomically(folder / RESULT, json.dumps(plain, allow_nan=False))


def _null_for_not_finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _null_for_not_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_null_for_not_finite(inner) for inner in value]
    return value


def is_finished(folder: Path) -> bool:
    """Whether the run has its result."""
    return (folder / RESULT).exists()


def read_record(folder: Path) -> Record:
    """One finished run."""
    cell = read_cell(folder)
    path = folder / RESULT
    if cell is None:
        raise UsageError(f"{path}: there is no {EXPERIMENT} beside it; move its folder away")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); move its folder away") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise UsageError(
            f"{path}: not a record of format {FORMAT}; it was written by another version of metalearn"
        )
    record = Record(folder, cell, result)
    try:
        # a thousand records of a paper's size are a gigabyte as lists, and a tenth of it so
        result["scores"] = {name: _packed(rows) for name, rows in result["scores"].items()}
        lengths = (len(record.final), len(record.score), len(record.title))
        numbers = (record.seed, record.steps, record.higher_is_better, *lengths)
        whole = all(math.isfinite(x) for x in (*numbers, result["seconds"])) and "diverged" in result
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: damaged ({error!r}); move its folder away") from error
    if not whole or {"experiment", "setting", "name"} - cell.keys():
        raise UsageError(f"{path}: damaged, it or {EXPERIMENT} lacks a key; move its folder away")
    return record


def _packed(rows: Any) -> NDArray[np.float64]:
    """Scores as an array `[tasks, T + 1]`, a null as NaN; ValueError, TypeError for anything else."""
    array = np.array(rows, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"scores must be a row for each test task, got an array of shape {array.shape}")
    return array


def read_records(directory: Path) -> list[Record]:
    """Every finished run below a folder, by experiment, setting, method and seed."""
    if not directory.is_dir():
        raise UsageError(f"{directory}: there is no such folder; give the --out of a run")
    found = [read_record(path.parent) for path in sorted(directory.rglob(RESULT))]
    return sorted(found, key=lambda r: (r.experiment, r.setting, r.method, r.seed))


def unfinished(directory: Path) -> Iterator[Path]:
    """The folders of runs that were begun and have no result."""
    for path in sorted(directory.rglob(EXPERIMENT)):
        if not is_finished(path.parent):
            yield path.parent


def require_same_experiment(directory: Path, wanted: Iterable[dict[str, Any]]) -> None:
    """Refuse a DIR whose runs of these experiments were asked for with other numbers.

    A table over runs of unlike size or tasks would compare what cannot be compared, so all that the
    runs of one setting share must be the same in `directory` and in `wanted`, and all there is of the
    runs of one method.
    """
    places: dict[Path, list[dict[str, Any]]] = {}
    for cell in wanted:
        places.setdefault(Path(cell["experiment"], cell["setting"]), []).append(cell)
    for place, cells in places.items():
        shared = [_shared(cell) for cell in cells]
        whole = {cell["name"]: _flat(cell) for cell in cells}
        for path in sorted((directory / place).rglob(EXPERIMENT)):
            if not any((path.parent / begun).exists() for begun in (CHECKPOINT, RESULT)):
                continue  # it failed before there was anything to keep
            found = read_cell(path.parent) or {}
            here = path.parent.relative_to(directory)
            _require_alike(_shared(found), shared, here, directory)
            if found.get("name") in whole:
                _require_alike(_flat(found), [whole[found["name"]]], here, directory)


def _require_alike(
    theirs: dict[str, Any], wanted: Iterable[dict[str, Any]], here: Path, directory: Path
) -> None:
    """UsageError for the first key by which a run in `directory` is another than one of `wanted`."""
    for ours in wanted:
        for key in sorted({*theirs, *ours} - {"seed", "seeds_together"}):
            if theirs.get(key) != ours.get(key):
                raise UsageError(
                    f"{directory}: it holds another experiment: {key} is {theirs.get(key)!r} in"
                    f" {here} and {ours.get(key)!r} here; use another --out"
                )


def _shared(cell: dict[str, Any]) -> dict[str, Any]:
    """What all methods of a setting have in common, by dotted key."""
    own = {"name", "seed", "seeds_together", "method", "device", "threads"}
    flat = _flat({key: value for key, value in cell.items() if key not in own})
    for key in ("tasks", "validation_tasks", "task_seed"):
        flat[f"settings.{key}"] = cell.get("method", {}).get("settings", {}).get(key)
    return flat


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{path}.{key}".lstrip(".")))
    return flat
