"""How large an experiment may be. What is larger is refused with its count, before any of it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metalearn_core.errors import UsageError

MAX_ROWS = 10_000
"""Rows of an experiment, over all its settings. The largest shipped experiment has 54."""
MAX_RUNS = 100_000
"""Runs of an experiment: rows times seeds. The largest shipped experiment has 1,620."""
MAX_EXAMPLES = 1_000_000
"""Examples of one task."""
MAX_COUNTS = {
    "steps": 1_000_000,
    "test_steps": 1_000_000,
    "validation_tasks": 10_000_000,
    "meta_batch": 1_000_000,
}
"""Settings of a run, where a mistake would fill the memory or never end."""
MAX_COUNT = 10**15
"""Any other number of a run's settings."""
MAX_TEST_TASKS = 10_000_000
"""Tasks of a family that a run is tested on."""
MAX_EXTENDS = 32
"""Files, or methods, that extend each other in a chain."""
SIZES = ("support", "query", "queries", "ways", "shots", "example_tasks")
"""Options of a family that say how large its tasks are, or how many examples it lends."""


def require_count(count: int, limit: int, what: str, advice: str) -> None:
    """Check a count.

    Args:
        count: The count.
        limit: The largest one.
        what: What is counted, such as `"rows"`.
        advice: What to do.

    Raises:
        UsageError: It is larger than the limit.
    """
    if count > limit:
        raise UsageError(f"{what}: {count:,}, and the most is {limit:,}; {advice}")


def require_axis_length(path: str, values: Sequence[Any]) -> None:
    """Raise UsageError for an axis with more values than there may be rows."""
    require_count(len(values), MAX_ROWS, f"values of axis {path!r}", "shorten it")


def count_points(grid: Mapping[str, Sequence[Any]]) -> int:
    """Return how many points a grid has, without making one."""
    return math.prod(len(values) for values in grid.values() if values)


def require_rows(settings: int, grids: Iterable[Mapping[str, Sequence[Any]]]) -> None:
    """Check how many rows an experiment has.

    Args:
        settings: How many settings it has.
        grids: The axes of each method.

    Raises:
        UsageError: There are more than `MAX_ROWS`. The message has the count.
    """
    require_count(settings * sum(map(count_points, grids)), MAX_ROWS, "rows", "shorten its axes")


def require_task_size(family: str, options: Mapping[str, Any]) -> None:
    """Check how large the tasks of a family are.

    Args:
        family: The name of the family.
        options: Its options.

    Raises:
        UsageError: A task would have more than `MAX_EXAMPLES` examples. The message has the count.
    """
    sizes = {name: options[name] for name in SIZES if type(options.get(name)) is int}
    for name, size in sizes.items():
        require_count(size, MAX_EXAMPLES, f"{name} of family {family!r}", "choose a smaller number")
    shots = sizes.get("ways", 1) * sizes.get("shots", 1)
    require_count(shots, MAX_EXAMPLES, f"examples in a task of {family!r}", "say fewer ways or shots")


def require_run_size(row: str, settings: Mapping[str, Any]) -> None:
    """Check the numbers in the settings of a row.

    Args:
        row: The name of the row.
        settings: Fields of `metalearn_core.Settings`.

    Raises:
        UsageError: One is larger than any run's. The message has it.
    """
    for name, count in settings.items():
        if type(count) is int:
            limit = MAX_COUNTS.get(name, MAX_COUNT)
            require_count(count, limit, f"{name} of row {row!r:.60}", "choose a smaller number")
