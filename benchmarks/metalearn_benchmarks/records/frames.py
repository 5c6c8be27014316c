"""Records as tables of pandas: a row for each run, each test task, or each validation. Imports no torch."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metalearn_benchmarks.records import reading
from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.records.record import Record
from metalearn_core.errors import UsageError, unknown

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".parquet", ".csv")
"""The endings of a table's file, which say its format."""
SETTINGS = ("order", "outer_lr", "meta_batch", "task_seed", "engine")
"""Settings of a method that a run's row has, beside T and the number of training tasks."""
COSTS = ("seconds", "peak_memory_bytes", "parameters", "meta_parameters")
PLACES = ("commit", "device", "threads", "processes", "best_position", "diverged")


def read_records(
    directory: Path | str, each: str = "run", warn: Callable[[str], None] | None = None
) -> pd.DataFrame:
    """Read the records of a folder, or of an archive, as a table of pandas.

    Every row begins with `experiment`, `setting`, `method` and `seed`. An archive and the folders that it was
    made from give the same columns; scores of single tasks have three digits in an archive.

    Args:
        directory: What `metalearn run` was given as `--out`, or an archive of it.
        each: What a row is. `"run"`: a run, with what was asked for, its summary over the test tasks of the
            family it was trained on, and what it cost. `"task"`: a test task of a family, with its `score`
            after T updates. `"validation"`: a validation during the training, with its `position`, the number
            of training tasks before it.
        warn: Called with one line for each record that cannot be read, which is left out. None: that is an
            error.

    Returns:
        The table. Its rows are sorted by experiment, setting, method and seed.

    Raises:
        UsageError: There is no such folder, a record cannot be read, or pandas is not installed.
    """
    if each not in ROWS:
        raise unknown("row", each, ROWS)
    pandas = _pandas()
    found = reading.read_records(Path(directory), warn)
    rows = [row for record in found for row in ROWS[each](record)]
    frame: pd.DataFrame = pandas.DataFrame(_in_one_kind(rows))
    return frame


def require_table_name(path: Path) -> None:
    """Raise UsageError for a file whose ending says no format that is known."""
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: the name of a table ends in {' or '.join(ENDINGS)}, which says its format")


def write_table(frame: pd.DataFrame, path: Path) -> int:
    """Write a table as Parquet or CSV, as a whole or not at all.

    Args:
        frame: The table.
        path: The file; its ending says the format.

    Returns:
        The size of the file in bytes.

    Raises:
        UsageError: The ending is not known, or a package is missing.
        WriteError: The file cannot be written.
    """
    require_table_name(path)
    if path.suffix.lower() == ".csv":
        data = frame.to_csv(index=False, lineterminator="\n").encode()
    else:
        data = _as_parquet(frame)
    write_atomically(path, data)
    return len(data)


def _as_parquet(frame: pd.DataFrame) -> bytes:
    packed = io.BytesIO()
    try:
        frame.to_parquet(packed, index=False)
    except ImportError as error:
        raise UsageError(
            f"Parquet needs the package pyarrow ({' '.join(str(error).split())[:120]}): pip install pyarrow,"
            " or write NAME.csv"
        ) from error
    return packed.getvalue()


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise UsageError(f"tables of records need pandas ({error}): pip install pandas") from error
    return pandas


def _names(record: Record) -> dict[str, Any]:
    return {
        "experiment": record.experiment,
        "setting": record.setting,
        "method": record.method,
        "seed": record.seed,
    }


def _run_row(record: Record) -> Iterator[dict[str, Any]]:
    cell, result = record.cell, record.result
    method, options = cell["method"], cell["family"].get("options", {})
    settings, summary = method["settings"], result.get("summary") or {}
    interval = summary.get("ci95") or [None, None]
    yield {
        **_names(record),
        "title": record.title,
        "scale": cell.get("scale"),
        "protocol": method.get("protocol", "paper"),
        "family": cell["family"]["name"],
        "ways": options.get("ways"),
        "shots": options.get("shots", options.get("support")),
        "learner": cell["learner"]["name"],
        "start": method["start"],
        "rule": method["rule"],
        "steps": record.steps,
        "training_tasks": settings.get("tasks"),
        **{key: settings.get(key) for key in SETTINGS},
        "score": record.score,
        "higher_is_better": record.higher_is_better,
        "mean": summary.get("mean"),
        "median": summary.get("median"),
        "ci95_low": interval[0],
        "ci95_high": interval[1],
        "test_tasks": len(record.final),
        **{key: result.get(key) for key in (*COSTS, *PLACES)},
        "torch": result.get("versions", {}).get("torch"),
        **{f"option.{key}": value for key, value in method["options"].items()},
        "folder": str(record.folder),
    }


def _task_rows(record: Record) -> Iterator[dict[str, Any]]:
    for family in record.result["scores"]:
        for task, score in enumerate(record.final_on(family).tolist()):
            yield {**_names(record), "family": family, "task": task, "score": score}


def _validation_rows(record: Record) -> Iterator[dict[str, Any]]:
    for position, score in record.result.get("validations", []):
        yield {**_names(record), "position": position, "score": score}


ROWS: Mapping[str, Callable[[Record], Iterable[dict[str, Any]]]] = {
    "run": _run_row,
    "task": _task_rows,
    "validation": _validation_rows,
}
"""The rows of a record, by what a row is."""


def _in_one_kind(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the columns of rows; one of lists, or of several kinds of values, becomes JSON in each row.

    A column of Parquet has one kind. The option `hidden` of one rule is a number, that of another a list.
    """
    columns = {key: [row.get(key) for row in rows] for row in rows for key in row}
    names = [key for key in columns if key != "folder"] + ["folder"] * ("folder" in columns)
    return {key: _column(columns[key]) for key in names}


def _column(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {str, bool}):
        return values
    return [None if value is None else json.dumps(value) for value in values]
