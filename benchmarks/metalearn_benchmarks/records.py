"""Records: what a finished run leaves on disk. Imports no torch."""

from __future__ import annotations

import json
import math
import re
import tomllib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import tomli_w
from numpy.typing import NDArray

from metalearn_core import write_atomically as write_whole
from metalearn_core.errors import UsageError, writing

FORMAT = 1
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
        rows = self.result["scores"][family or self.cell["family"]["name"]]
        return np.asarray(rows, dtype=np.float64)  # no copy of what was read from a file


def read_cell(folder: Path) -> dict[str, Any] | None:
    """What a run's folder was asked for, or None where there is nothing; DamagedError, UsageError."""
    path = folder / EXPERIMENT
    if not path.exists():
        return None
    text = _bytes_of(path)
    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise DamagedError(path, f"cannot be read ({error})") from error


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # the file may be whole
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


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
    plain = _null_for_not_finite({"format": FORMAT, **result})
    text = json.dumps(plain, allow_nan=False)[:-1].encode()
    write_atomically(folder / RESULT, text + _seal(text))
    (folder / ERROR).unlink(missing_ok=True)  # of an earlier attempt


def _seal(text: bytes) -> bytes:
    return b', "crc32": "%08x"}' % zlib.crc32(text)


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


def is_sealed(folder: Path) -> bool:
    """Whether the run's result has this version's format and its checksum: it need not be read whole."""
    data = _bytes_of(folder / RESULT)
    text = data[: -len(_seal(b""))]
    return data.startswith(b'{"format": %d, ' % FORMAT) and data == text + _seal(text)


def read_record(folder: Path) -> Record:
    """One finished run; DamagedError names the file, UsageError one that cannot be read here."""
    path = folder / RESULT
    text = _bytes_of(path)
    try:
        result = json.loads(text)
    except ValueError as error:
        raise DamagedError(path, f"cannot be read ({error})") from error
    found = result.get("format") if isinstance(result, dict) else None
    if type(found) is int and found > FORMAT:
        raise UsageError(
            f"{path}: a record of format {found}, and this version reads {FORMAT}: another version of"
            " metalearn wrote it, a newer one"
        )
    if found != FORMAT:
        raise DamagedError(path, f"not a record of format {FORMAT}, nor one of another version")
    cell = read_cell(folder)
    if cell is None:
        raise DamagedError(path, f"there is no {EXPERIMENT} beside it")
    record = Record(folder, cell, result)
    try:
        # a thousand records of a paper's size are a gigabyte as lists, and a tenth of it so
        result["scores"] = {name: _packed(rows) for name, rows in result["scores"].items()}
        lengths = (len(record.final), len(record.score), len(record.title))
        numbers = (record.seed, record.steps, record.higher_is_better, *lengths)
        whole = all(math.isfinite(x) for x in (*numbers, result["seconds"])) and "diverged" in result
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DamagedError(path, f"damaged ({error!r})") from error
    if not whole or {"experiment", "setting", "name"} - cell.keys():
        raise DamagedError(path, f"damaged, it or {EXPERIMENT} lacks a key")
    return record


def _packed(rows: Any) -> NDArray[np.float64]:
    """Scores as an array `[tasks, T + 1]`, a null as NaN; ValueError, TypeError for anything else."""
    array = np.array(rows, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"scores must be a row for each test task, got an array of shape {array.shape}")
    return array


def read_records(directory: Path, left_out: Callable[[str], None] | None = None) -> list[Record]:
    """Every finished run below a folder, by experiment, setting, method and seed.

    `left_out`: told in one line of each that is damaged or of a newer version; without it, that is an error.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory}: there is no such folder; give the --out of a run")
    found = []
    for path in sorted(directory.rglob(RESULT)):
        try:
            found.append(read_record(path.parent))
        except UsageError as error:
            if left_out is None:
                raise
            left_out(str(error))
    return sorted(found, key=lambda r: (r.experiment, r.setting, r.method, r.seed))


def unfinished(directory: Path) -> Iterator[Path]:
    """The folders of runs that were begun and have no result."""
    for path in sorted(directory.rglob(EXPERIMENT)):
        if not is_finished(path.parent):
            yield path.parent


def require_same_experiment(directory: Path, wanted: Sequence[dict[str, Any]]) -> set[Path]:
    """Refuse a DIR whose runs of this experiment were asked for with other numbers.

    A table over runs of unlike size or tasks would compare what cannot be compared, so all that the
    runs of one setting share must be the same in `directory` and in `wanted`, a cell of each method.
    Returns the folders of runs whose `experiment.toml` is damaged.
    """
    damaged: set[Path] = set()
    for place in {directory / one["experiment"] / one["setting"]: None for one in wanted}:
        here = [one for one in wanted if directory / one["experiment"] / one["setting"] == place]
        agreed: set[bytes] = set()  # a thousand runs differ in their seeds alone: each text is read once
        for path in sorted(place.rglob(EXPERIMENT)):
            if not any((path.parent / begun).exists() for begun in (CHECKPOINT, RESULT)):
                continue  # it failed before there was anything to keep
            text = _SEEDS.sub(b"", _bytes_of(path))
            try:
                if text not in agreed:
                    _require_same(directory, path.parent, here)
                    agreed.add(text)
            except DamagedError:
                damaged.add(path.parent)
    return damaged


_SEEDS = re.compile(rb"^(seed = \d+|seeds_together = \[[\d,\s]*\])$", re.MULTILINE)


def _require_same(directory: Path, folder: Path, wanted: Sequence[dict[str, Any]]) -> None:
    """Refuse what one folder was asked for where it differs from what is wanted; DamagedError."""
    require_whole(folder)
    found = {"processes": 1, **(read_cell(folder) or {})}  # it was not always said
    own, shared = _flat(found), _shared(found)
    for one in wanted:
        theirs, ours = (own, _flat(one)) if found.get("name") == one["name"] else (shared, _shared(one))
        for key in sorted({*theirs, *ours} - {"seed", "seeds_together"}):
            if theirs.get(key) != ours.get(key):
                raise AnotherExperimentError(
                    f"{directory}: it holds another experiment: {key} is {theirs.get(key)!r} in"
                    f" {folder.relative_to(directory)} and {ours.get(key)!r} here; use another --out"
                )


def _shared(cell: dict[str, Any]) -> dict[str, Any]:
    """What all methods of a setting have in common, by dotted key."""
    own = {"name", "seed", "seeds_together", "method", "device", "threads", "processes"}
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
