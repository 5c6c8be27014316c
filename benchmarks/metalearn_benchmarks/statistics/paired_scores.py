"""Scores of two methods on the same test tasks, seed by seed; refused where the tasks differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.estimate import Array
from metalearn_core.errors import UsageError

DATA = "data of "
"""What a checksum of prepared data is called among what tasks follow from; records that lack it pass."""


@attrs.frozen(eq=False)
class Scores:
    """A method's scores after T steps, `values[seed, task]`, and which tasks they are of."""

    method: str
    seeds: tuple[int, ...]
    values: Array
    tasks: dict[str, Any]

    @classmethod
    def of(cls, runs: Sequence[Record], tested_on: str | None = None) -> Scores:
        """Of a method's runs; `tested_on`: another test family than the one trained on.

        Raises UsageError where a seed stands there twice, or runs were tested on different tasks.
        """
        seeds = [run.seed for run in runs]
        for place, run in enumerate(runs):
            if run.seed in seeds[:place]:
                twin = runs[seeds.index(run.seed)]
                raise UsageError(f"{twin.folder} and {run.folder} are the same run; take one of them away")
            require_same_tasks(runs[0], run)
        finals = [run.final_on(tested_on) for run in runs]
        return cls(runs[0].method, tuple(seeds), np.array(finals, dtype=float), tasks_of(runs[0]))


def tasks_of(run: Record) -> dict[str, Any]:
    """What the test tasks of a run follow from, by dotted key of its `experiment.toml`."""
    family, settings = run.cell["family"], run.cell["method"]["settings"]
    return {
        "family.name": family["name"],
        **{f"family.options.{key}": value for key, value in sorted(family.get("options", {}).items())},
        "test_tasks": len(run.final),
        "method.settings.task_seed": settings.get("task_seed", 0),
        **{f"{DATA}{name}": value for name, value in sorted((run.result.get("data") or {}).items())},
    }


def require_same_tasks(one: Record, other: Record) -> None:
    """Refuse two runs that were tested on different tasks, by what differs first."""
    _require_alike(str(one.folder), tasks_of(one), str(other.folder), tasks_of(other))


def _require_alike(one: str, theirs: dict[str, Any], other: str, ours: dict[str, Any]) -> None:
    for key in {**theirs, **ours}:
        known = key in theirs and key in ours
        if theirs.get(key) != ours.get(key) and (known or not key.startswith(DATA)):
            raise UsageError(
                f"{one} and {other} were tested on different tasks: {key} is"
                f" {theirs.get(key)!r} and {ours.get(key)!r}; compare runs of the same tasks"
            )


def paired(one: Scores, other: Scores) -> tuple[Array, Array]:
    """The scores of the seeds that both have, `[seeds, tasks]` each.

    Raises UsageError where their tasks differ, and where no seed is in both.
    """
    _require_alike(one.method, one.tasks, other.method, other.tasks)
    both = sorted({*one.seeds} & {*other.seeds})
    if not both:
        raise UsageError(
            f"{one.method} (seeds {_listed(one.seeds)}) and {other.method} (seeds {_listed(other.seeds)})"
            " have no seed in common; run the same seeds of both"
        )
    found = [side.values[[side.seeds.index(seed) for seed in both]] for side in (one, other)]
    return found[0], found[1]


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
