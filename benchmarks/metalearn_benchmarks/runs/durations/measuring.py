"""Timing the programs of an experiment: each is run for a few outer steps, as it would be run whole."""

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
from metalearn_benchmarks.runs.durations.estimates import Times, Timing
from metalearn_benchmarks.runs.training import run_cells
from metalearn_core import Event, Settings

STEPS = 30
"""Outer steps that are timed; the first, which compiles, is counted by itself."""


def measure(cells: Sequence[Cell], times: Times, workers: int, say: Callable[[str], None]) -> None:
    """Time every program of an experiment that was not timed here before, and keep it at once.

    Args:
        cells: all of an experiment.
        workers: how many jobs would run at a time, and share the memory.
        say: told which program is timed.

    Raises:
        UsageError: for a cell that cannot be run, and for a cache that cannot be written.
    """
    seeds = max(cell.seed for cell in cells) + 1
    if not times.start:
        times.start = start_up()
    for cell in cells:
        if times.of(cell) is None:  # of the first seed; the others are the same program
            say(f"{cell.experiment}: {cell.prefix}{cell.name}")
            times.keep(cell, timed(cell, seeds, min(workers, len(cells))))


def timed(cell: Cell, seeds: int, workers: int) -> Timing:
    """A cell's program, run for a few outer steps with as many of `seeds` as would train together."""
    settings = Components.of(cell).settings
    together = min(seeds, seed_groups.size_of(cell, Components.of(cell), None, workers))
    few = min(settings.tasks, STEPS * settings.meta_batch)
    changed = {**cell.method.settings, "tasks": few, "engine": settings.wanted_engine}
    short = attrs.evolve(cell, method=attrs.evolve(cell.method, settings=changed))
    watch = EventTimes()
    with tempfile.TemporaryDirectory() as folder:
        since = time.monotonic()
        run_cells(
            [attrs.evolve(short, seed=seed) for seed in range(together)],
            Path(folder),
            [watch],
            installed=False,
        )
        whole = time.monotonic() - since
    steps, validations = watch.durations("step"), watch.durations("validation")
    # what comes first compiles, and is no measure of the others
    step, validation = (median(found[1:] or found or [0.0]) for found in (steps, validations))
    return Timing(
        seeds=together,
        engine=watch.engine,
        set_up=max(whole - len(steps) * step - len(validations) * validation, 0.0),
        step=step,
        validation=validation,
        steps=_steps(cell, settings),
        validations=_validations(cell, settings),
    )


def _steps(cell: Cell, settings: Settings) -> int:
    return -(-settings.tasks // settings.meta_batch) if cell.method.trains else 0


def _validations(cell: Cell, settings: Settings) -> int:
    """At 0, at every multiple of the interval, and at the end."""
    if not cell.method.trains or not settings.tasks:
        return 0
    whole, rest = divmod(settings.tasks, settings.validation_interval)
    return 1 + whole + (rest > 0)


@attrs.define
class EventTimes:
    """Observer that notes when something happened; seeds that train together are one."""

    engine: str = "eager"
    began: dict[tuple[str, int], float] = attrs.field(factory=dict)
    ended: dict[tuple[str, int], float] = attrs.field(factory=dict)
    last: float = attrs.field(factory=time.monotonic)

    def __call__(self, event: Event) -> None:
        """It is told when something is done, so that it began with what was told before."""
        key, now = (event.kind, event.position), time.monotonic()
        if event.kind == "engine":
            self.engine = str(event.values["engine"])
            return  # told within a step
        self.began.setdefault(key, self.last)
        self.ended[key] = self.last = now

    def durations(self, kind: str) -> list[float]:
        """Seconds that each of a kind took, in their order."""
        return [self.ended[key] - began for key, began in self.began.items() if key[0] == kind]


def start_up() -> float:
    """Seconds that a fresh process takes until it can run a cell."""
    since = time.monotonic()
    subprocess.run([sys.executable, "-c", "import metalearn_benchmarks.runs.runner"], check=True)
    return time.monotonic() - since
