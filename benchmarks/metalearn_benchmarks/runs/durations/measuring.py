"""Timing the programs of an experiment: each is run for a few outer steps."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import attrs

from metalearn_benchmarks.experiments.cell import Cell
from metalearn_benchmarks.runs import seed_groups
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.runs.durations.estimates import Timing, TimingCache
from metalearn_benchmarks.runs.training import run_cells
from metalearn_core import Event, Settings

TIMED_STEPS = 30
"""Outer steps that are timed. The first one includes the compilation, and is counted separately."""


def time_programs(
    cells: Sequence[Cell], cache: TimingCache, workers: int, say: Callable[[str], None]
) -> None:
    """Time every program of an experiment that was not timed here before.

    Each timing is written at once.

    Args:
        cells: All cells of the experiment.
        cache: The timings.
        workers: How many jobs would run at a time, and share the memory.
        say: Called with the name of each program that is timed.

    Raises:
        UsageError: A cell cannot be run, or the cache cannot be written.
    """
    seeds = max(cell.seed for cell in cells) + 1
    if not cache.start:
        cache.start = startup_seconds()
    for cell in cells:
        if cache.get(cell) is None:  # of the first seed; the others are the same program
            say(f"{cell.experiment}: {cell.prefix}{cell.name}")
            cache.put(cell, time_program(cell, seeds, min(workers, len(cells))))


def time_program(cell: Cell, seeds: int, workers: int) -> Timing:
    """Time a cell's program by a few outer steps.

    Args:
        cell: The cell.
        seeds: How many seeds there are, of which as many as would train together are run.
        workers: How many programs would run at a time.
    """
    settings = Components.build(cell).settings
    seeds_together = min(seeds, seed_groups.group_size(cell, Components.build(cell), None, workers))
    few = min(settings.tasks, TIMED_STEPS * settings.meta_batch)
    changed = {**cell.method.settings, "tasks": few, "engine": settings.wanted_engine}
    short = attrs.evolve(cell, method=attrs.evolve(cell.method, settings=changed))
    event_times = EventTimes()
    with tempfile.TemporaryDirectory() as folder:
        since = time.monotonic()
        run_cells(
            [attrs.evolve(short, seed=seed) for seed in range(seeds_together)],
            Path(folder),
            [event_times],
            notify_installed=False,
        )
        whole = time.monotonic() - since
    steps, validations = event_times.durations("step"), event_times.durations("validation")
    # what comes first compiles, and is no measure of the others
    step, validation = (median(found[1:] or found or [0.0]) for found in (steps, validations))
    return Timing(
        seeds=seeds_together,
        engine=event_times.engine,
        set_up=max(whole - len(steps) * step - len(validations) * validation, 0.0),
        step=step,
        validation=validation,
        steps=_count_steps(cell, settings),
        validations=_count_validations(cell, settings),
        validation_tasks=settings.validation_tasks if cell.method.trains else 0,
    )


def _count_steps(cell: Cell, settings: Settings) -> int:
    return -(-settings.tasks // settings.meta_batch) if cell.method.trains else 0


def _count_validations(cell: Cell, settings: Settings) -> int:
    """Return the number of validations: at 0, at every multiple of the interval, and at the end."""
    if not cell.method.trains or not settings.tasks:
        return 0
    whole, rest = divmod(settings.tasks, settings.validation_interval)
    return 1 + whole + (rest > 0)


@attrs.define
class EventTimes:
    """Observer that records when each event happened. Seeds that train together count as one.

    Args:
        engine: The engine that the events name.
        began: When each event began, by kind and position.
        ended: When each event ended.
        last: When the last event ended.
    """

    engine: str = "eager"
    began: dict[tuple[str, int], float] = attrs.field(factory=dict)
    ended: dict[tuple[str, int], float] = attrs.field(factory=dict)
    last: float = attrs.field(factory=time.monotonic)

    def __call__(self, event: Event) -> None:
        """Record an event. It is sent when something is done, which began when the previous event ended."""
        key, now = (event.kind, event.position), time.monotonic()
        if event.kind == "engine":
            self.engine = str(event.values["engine"])
            return  # it occurs within a step
        self.began.setdefault(key, self.last)
        self.ended[key] = self.last = now

    def durations(self, kind: str) -> list[float]:
        """Return the seconds of each event of a kind, in their order."""
        return [self.ended[key] - began for key, began in self.began.items() if key[0] == kind]


def startup_seconds() -> float:
    """Return the seconds that a fresh process takes until it can run a cell."""
    since = time.monotonic()
    subprocess.run([sys.executable, "-c", "import metalearn_benchmarks.runs.runner"], check=True)
    return time.monotonic() - since
