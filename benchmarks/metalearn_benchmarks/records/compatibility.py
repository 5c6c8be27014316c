"""Whether runs may stand in one table with those that DIR has already. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metalearn_benchmarks.records.archive import ArchivedRun
from metalearn_benchmarks.records.files import (
    CHECKPOINT,
    EXPERIMENT,
    RESULT,
    AnotherExperimentError,
    DamagedError,
    bytes_of,
)
from metalearn_benchmarks.records.record import read_cell, require_whole


def require_same_experiment(
    directory: Path, wanted: Sequence[dict[str, Any]], archived: Sequence[ArchivedRun] = ()
) -> set[Path]:
    """Refuse a DIR whose runs of this experiment were asked for with other numbers.

    A table over runs of unlike size or tasks would compare what cannot be compared, so all that the
    runs of one setting share must be the same in `directory` and in `wanted`, a cell of each method.
    Returns the folders of runs whose `experiment.toml` is damaged. `archived`: the runs in DIR's archives.
    """
    damaged: set[Path] = set()
    for place in {directory / one["experiment"] / one["setting"]: None for one in wanted}:
        here = [one for one in wanted if directory / one["experiment"] / one["setting"] == place]
        agreed: set[bytes] = set()  # a thousand runs differ in their seeds alone: each text is read once
        for path in sorted(place.rglob(EXPERIMENT)):
            if not any((path.parent / begun).exists() for begun in (CHECKPOINT, RESULT)):
                continue  # it failed before there was anything to keep
            text = _SEEDS.sub(b"", bytes_of(path))
            try:
                if text not in agreed:
                    require_whole(path.parent)
                    _require_same(directory, path.parent, read_cell(path.parent) or {}, here)
                    agreed.add(text)
            except DamagedError:
                damaged.add(path.parent)
        for kept in archived:
            text = _SEEDS.sub(b"", kept.experiment)
            if kept.place.parts[:2] == place.parts[-2:] and text not in agreed:
                _require_same(directory, kept.folder, kept.cell(), here)
                agreed.add(text)
    return damaged


_SEEDS = re.compile(rb"^(seed = \d+|seeds_together = \[[\d,\s]*\])$", re.MULTILINE)


def _require_same(
    directory: Path, folder: Path, cell: dict[str, Any], wanted: Sequence[dict[str, Any]]
) -> None:
    """Refuse what one folder was asked for where it differs from what is wanted."""
    # it was not always said
    found = {"processes": 1, **cell, "method": {"protocol": "paper", **cell["method"]}}
    if "data" not in found:
        wanted = [{key: value for key, value in one.items() if key != "data"} for one in wanted]
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
