"""The scores of two methods on the same test tasks, paired by seed. Different tasks are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.estimate import Array
from metalearn_core.errors import UsageError

DATA_KEY_PREFIX = "data of "
"""The start of the keys that name checksums of prepared data. A record may lack them."""


@attrs.frozen(eq=False)
class MethodScores:
    """The scores of a method after T steps.

    Args:
        method: the name of the method.
        seeds: the seed of each row of `values`.
        values: the scores `[seeds, tasks]`.
        tasks: what the test tasks follow from, as `task_identity` gives it.
    """

    method: str
    seeds: tuple[int, ...]
    values: Array
    tasks: dict[str, Any]

    @classmethod
    def from_runs(cls, runs: Sequence[Record], test_family: str | None = None) -> MethodScores:
        """Collect the scores of a method's runs.

        Args:
            runs: the runs of one method in one setting.
            test_family: the family of the test tasks; None for the one that the method was trained on.

        Raises:
            UsageError: a seed is there twice, or runs were tested on different tasks.
        """
        seeds = [run.seed for run in runs]
        for place, run in enumerate(runs):
            if run.seed in seeds[:place]:
                twin = runs[seeds.index(run.seed)]
                raise UsageError(f"{twin.folder} and {run.folder} are the same run; take one of them away")
            require_same_tasks(runs[0], run)
        finals = [run.final_on(test_family) for run in runs]
        return cls(runs[0].method, tuple(seeds), np.array(finals, dtype=float), task_identity(runs[0]))


def task_identity(run: Record) -> dict[str, Any]:
    """Return what the test tasks of a run follow from, by dotted key of its `experiment.toml`."""
    family, settings = run.cell["family"], run.cell["method"]["settings"]
    return {
        "family.name": family["name"],
        **{f"family.options.{key}": value for key, value in sorted(family.get("options", {}).items())},
        "test_tasks": len(run.final),
        "method.settings.task_seed": settings.get("task_seed", 0),
        **{
            f"{DATA_KEY_PREFIX}{name}": value
            for name, value in sorted((run.result.get("data") or {}).items())
        },
    }


def require_same_tasks(one: Record, other: Record) -> None:
    """Raise UsageError where two runs were tested on different tasks; it names the first difference."""
    _require_same_identity(str(one.folder), task_identity(one), str(other.folder), task_identity(other))


def _require_same_identity(one: str, theirs: dict[str, Any], other: str, ours: dict[str, Any]) -> None:
    for key in {**theirs, **ours}:
        known = key in theirs and key in ours
        if theirs.get(key) != ours.get(key) and (known or not key.startswith(DATA_KEY_PREFIX)):
            raise UsageError(
                f"{one} and {other} were tested on different tasks: {key} is"
                f" {theirs.get(key)!r} and {ours.get(key)!r}; compare runs of the same tasks"
            )


def pair_scores(one: MethodScores, other: MethodScores) -> tuple[Array, Array]:
    """Return the scores of the seeds that both methods have, `[seeds, tasks]` each.

    Raises:
        UsageError: the test tasks differ, or no seed is in both.
    """
    _require_same_identity(one.method, one.tasks, other.method, other.tasks)
    common = sorted({*one.seeds} & {*other.seeds})
    if not common:
        raise UsageError(
            f"{one.method} (seeds {_comma_separated(one.seeds)}) and"
            f" {other.method} (seeds {_comma_separated(other.seeds)})"
            " have no seed in common; run the same seeds of both"
        )
    first, second = [side.values[[side.seeds.index(seed) for seed in common]] for side in (one, other)]
    return first, second


def _comma_separated(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
