"""The check that new runs may stand in one table with those that DIR already holds. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metalearn_benchmarks.host.data_files import MAX_TOML_BYTES
from metalearn_benchmarks.host.folders import find_files, plain_name
from metalearn_benchmarks.records.archive import ArchivedRun
from metalearn_benchmarks.records.cell_file import require_own_cell
from metalearn_benchmarks.records.files import (
    CHECKPOINT,
    EXPERIMENT,
    RESULT,
    AnotherExperimentError,
    DamagedError,
    read_bytes,
)


def require_same_experiment(
    directory: Path, wanted: Sequence[dict[str, Any]], archived: Sequence[ArchivedRun] = ()
) -> set[Path]:
    """Check that the runs of an experiment in DIR were asked for with the same numbers.

    A table over runs of different sizes or tasks would compare what is not comparable. So everything that the
    runs of a setting share must be the same in `directory` and in `wanted`.

    Args:
        directory: DIR.
        wanted: A resolved cell of each method that is to be run.
        archived: The runs in DIR's archives.

    Returns:
        The folders of runs whose `experiment.toml` is damaged.

    Raises:
        AnotherExperimentError: A number differs. The message names it.
    """
    damaged: set[Path] = set()
    for setting in dict.fromkeys((one["experiment"], one["setting"]) for one in wanted):
        here = [one for one in wanted if (one["experiment"], one["setting"]) == setting]
        plain = tuple(map(plain_name, setting))
        agreed: set[bytes] = set()  # the runs of a method differ in their seeds alone: each text is read once
        # earlier versions named folders as the settings are named
        folders = [directory.joinpath(*names) for names in {setting, plain}]
        for path in (path for folder in folders for path in find_files(folder, EXPERIMENT.__eq__)):
            if not any((path.parent / name).exists() for name in (CHECKPOINT, RESULT)):
                continue  # it failed before there was anything to keep
            try:
                whole = read_bytes(path, MAX_TOML_BYTES)
                text = path.parent.parent.name.encode() + _SEEDS.sub(b"", whole)
                if text not in agreed or not _is_of_seed(whole, path.parent.name):
                    _require_same(directory, path.parent, require_own_cell(path.parent), here)
                    agreed.add(text)
            except DamagedError:
                damaged.add(path.parent)
        for run in archived:
            text = b"archived" + _SEEDS.sub(b"", run.experiment)
            if tuple(map(plain_name, run.relative_folder.parts[:2])) == plain and text not in agreed:
                _require_same(directory, run.folder, run.cell(), here)
                agreed.add(text)
    return damaged


def _is_of_seed(text: bytes, seed: str) -> bool:
    """Return whether an `experiment.toml` that was found to be valid, but for its seed, is of that seed."""
    return re.search(rb"^seed = %s$" % re.escape(seed.encode()), text, re.MULTILINE) is not None


_SEEDS = re.compile(rb"^(seed = \d+|seeds_together = \[[\d,\s]*\])$", re.MULTILINE)


def _require_same(
    directory: Path, folder: Path, cell: dict[str, Any], wanted: Sequence[dict[str, Any]]
) -> None:
    """Raise AnotherExperimentError where the cell of one folder differs from those wanted."""
    # records of earlier versions lack these keys
    before = {"protocol": "paper", "meta_gradient": "backpropagation", "meta_gradient_options": {}}
    found = {"processes": 1, **cell, "method": {**before, **cell["method"]}}
    if "data" not in found:
        wanted = [{key: value for key, value in one.items() if key != "data"} for one in wanted]
    own, shared = _flatten(found), _shared(found)
    for one in wanted:
        theirs, ours = (own, _flatten(one)) if found.get("name") == one["name"] else (shared, _shared(one))
        for key in sorted({*theirs, *ours} - {"seed", "seeds_together"}):
            if theirs.get(key) != ours.get(key):
                raise AnotherExperimentError(
                    f"{directory}: it holds another experiment: {key} is {theirs.get(key)!r} in"
                    f" {folder.relative_to(directory)} and {ours.get(key)!r} here; use another --out"
                )


def _shared(cell: dict[str, Any]) -> dict[str, Any]:
    """Return what all methods of a setting have in common, by dotted key."""
    own = {"name", "seed", "seeds_together", "method", "device", "threads", "processes"}
    flat = _flatten({key: value for key, value in cell.items() if key not in own})
    for key in ("tasks", "validation_tasks", "task_seed"):
        flat[f"settings.{key}"] = cell.get("method", {}).get("settings", {}).get(key)
    return flat


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: list(value) if isinstance(value, tuple) else value}  # a record has lists alone
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flatten(inner, f"{path}.{key}".lstrip(".")))
    return flat
