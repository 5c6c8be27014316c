"""The record of one run: writing it, reading it and checking it. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from metalearn_benchmarks.host.data_files import MalformedError, parse_json
from metalearn_benchmarks.host.folders import find_files
from metalearn_benchmarks.records.cell_file import parse_cell, read_cell_text, require_valid_cell
from metalearn_benchmarks.records.contents import number_array, require_result
from metalearn_benchmarks.records.files import (
    CHECKPOINT,
    ERROR,
    EXPERIMENT,
    METRICS,
    RESULT,
    DamagedError,
    read_bytes,
    replace_non_finite,
    write_atomically,
)
from metalearn_benchmarks.records.seal import file_digest, is_whole, require_whole, seal
from metalearn_core.errors import UsageError

FORMAT, ARCHIVE_FORMAT = 1, 2
"""Formats of `result.json`: as a run writes it, and as an archive holds it (see `archive.py`)."""


@attrs.frozen(eq=False)
class Record:
    """A finished run.

    Args:
        folder: Where it lies.
        cell: What was asked for, from `experiment.toml`.
        result: What came out, from `result.json`; the scores are arrays.
    """

    folder: Path
    cell: dict[str, Any]
    result: dict[str, Any]

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.cell["experiment"])

    @property
    def setting(self) -> str:
        """Name of the setting: family, ways and shots."""
        return str(self.cell["setting"])

    @property
    def method(self) -> str:
        """Name of the row: the method, with whatever was varied in it."""
        return str(self.cell["name"])

    @property
    def title(self) -> str:
        """The method's title for readers, with whatever was varied in it."""
        given, own = self.cell["method"]["title"], self.method.partition(",")
        return str(given if not own[2] or given == self.method else f"{given} ({own[2]})")

    @property
    def score(self) -> str:
        """The name of the score, in words."""
        return str(self.result["score"])

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is better."""
        return bool(self.result["higher_is_better"])

    @property
    def seed(self) -> int:
        """The seed of θ⁰ and φ."""
        return int(self.cell["seed"])

    @property
    def steps(self) -> int:
        """T at test."""
        family = self.cell["family"]["name"]
        by_step = self.result.get("by_step", {}).get(family)
        return len(self._scores(None)[0] if by_step is None else by_step) - 1

    @property
    def by_step(self) -> NDArray[np.float64]:
        """Mean score over test tasks of the family trained on, after 0 ... T steps: `[T + 1]`."""
        by_step = self.result.get("by_step", {}).get(self.cell["family"]["name"])
        return self._scores(None).mean(0) if by_step is None else np.asarray(by_step, dtype=np.float64)

    @property
    def final(self) -> NDArray[np.float64]:
        """Score after T steps of each test task of the family trained on: `[tasks]`."""
        return self.final_on(None)

    def final_on(self, family: str | None) -> NDArray[np.float64]:
        """Return the score after T steps of each test task of a family: `[tasks]`.

        Args:
            family: The family's name. None stands for the family trained on.
        """
        return self._scores(family)[:, -1]

    def _scores(self, family: str | None) -> NDArray[np.float64]:
        rows = self.result["scores"][family or self.cell["family"]["name"]]
        return np.asarray(rows, dtype=np.float64)  # no copy of what was read from a file


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write the `result.json` of a run, which finishes it.

    It is sealed together with the other files of the run beside it: see `records.seal`. The traceback
    of an earlier attempt is removed.
    """
    plain = replace_non_finite({"format": FORMAT, **result})
    text = json.dumps(plain, allow_nan=False).encode()
    experiment = read_cell_text(folder)
    if experiment is None:
        raise DamagedError(folder / EXPERIMENT, "there is none, and a result is written beside it")
    beside = [file_digest(folder / name) for name in (CHECKPOINT, METRICS)]
    write_atomically(folder / RESULT, seal(text, experiment, *beside))
    (folder / ERROR).unlink(missing_ok=True)  # of an earlier attempt


def is_finished(folder: Path) -> bool:
    """Return whether a run has its result."""
    return (folder / RESULT).exists()


def has_valid_checksum(folder: Path) -> bool:
    """Return whether a result is whole and of its `experiment.toml`, so that it need not be parsed."""
    data, experiment = read_bytes(folder / RESULT), read_cell_text(folder)
    return data.startswith(b'{"format": %d, ' % FORMAT) and is_whole(data, experiment or b"")


def read_record(folder: Path, placed: bool = True) -> Record:
    """Read the record of a finished run.

    Args:
        folder: The run's folder.
        placed: Whether it must lie where its run put it; False for a folder that may have been copied.

    Raises:
        DamagedError: A file is damaged. The error names it.
        UsageError: A file cannot be read, or a newer version wrote it.
    """
    return parse_record(folder, read_bytes(folder / RESULT), lambda: read_cell_text(folder), placed)


def parse_record(
    folder: Path, text: bytes, read_experiment: Callable[[], bytes | None], placed: bool = True
) -> Record:
    """Parse the record of a finished run.

    Args:
        folder: The run's folder.
        text: The contents of its `result.json`.
        read_experiment: Returns the contents of its `experiment.toml`; called only where the result is
            intact.
        placed: Whether it must lie in the folder of its method and seed.

    Raises:
        DamagedError: A file is damaged. The error names it.
        UsageError: A newer version wrote the record.
    """
    path = folder / RESULT
    try:
        result = parse_json(text)
    except MalformedError as error:
        raise DamagedError(path, f"cannot be read ({error})") from error
    found = result.get("format") if isinstance(result, dict) else None
    if type(found) is int and found > ARCHIVE_FORMAT:
        raise UsageError(
            f"{path}: a record of format {found}, and this version reads up to {ARCHIVE_FORMAT}: another"
            " version of metalearn wrote it, a newer one"
        )
    if found not in (FORMAT, ARCHIVE_FORMAT):
        raise DamagedError(path, f"not a record of format {FORMAT}, nor one of another version")
    experiment = read_experiment()
    if experiment is None:
        raise DamagedError(path, f"there is no {EXPERIMENT} beside it")
    require_whole(folder, text, result, experiment)
    cell = parse_cell(folder / EXPERIMENT, experiment)
    require_valid_cell(folder, cell, placed)
    record = Record(folder, cell, result)
    try:
        require_result(result)
        _require_own_names(record)
        # a thousand records of a paper's size are a gigabyte as lists, and a tenth of it so
        shape, scores = (
            ((-1, 1), result.pop("final")) if found == ARCHIVE_FORMAT else (None, result["scores"])
        )
        result["scores"] = {name: _score_array(rows, shape) for name, rows in scores.items()}
        if record.steps < 0 or len(record.final) == 0 or not math.isfinite(result["seconds"]):
            raise ValueError("it has no scores, or no time")
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DamagedError(path, f"damaged ({said})") from error
    return record


def _require_own_names(record: Record) -> None:
    """Raise ValueError for a result that names another run; those of earlier versions name none."""
    own = {
        "experiment": record.experiment, "setting": record.setting, "method": record.method,
        "seed": record.seed,
    }  # fmt: skip
    for key, name in own.items():
        if record.result.get(key, name) != name:
            raise ValueError(f"it is of {key} {record.result[key]!r:.80}, {EXPERIMENT} of {name!r:.80}")


def _score_array(rows: Any, shape: tuple[int, int] | None) -> NDArray[np.float64]:
    """Return scores as an array `[tasks, T + 1]`, with NaN for null; ValueError for other data.

    Args:
        rows: The scores.
        shape: The shape to give them: an archive has those after T steps alone, as a list. None: their own.
    """
    array = number_array(rows)
    if array.ndim != (2 if shape is None else 1) or array.size == 0:
        raise ValueError(f"scores must be a row for each test task, got an array of shape {array.shape}")
    return array if shape is None else array.reshape(shape)


def unfinished_runs(directory: Path) -> Iterator[Path]:
    """Yield the folders of runs that were started and have no result."""
    for path in find_files(directory, EXPERIMENT.__eq__):
        if not is_finished(path.parent):
            yield path.parent
