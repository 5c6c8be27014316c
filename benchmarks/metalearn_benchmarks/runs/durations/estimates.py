"""About how long an experiment takes on this machine: from programs that were timed here, and kept.

Imports no torch: `measuring`, beside it, does the timing. What it found is in the user's cache folder, in one
file for each machine and set of versions.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.experiments.cell import Cell
from metalearn_benchmarks.host.machine import cores, processor
from metalearn_benchmarks.host.user_folders import cache_folder
from metalearn_benchmarks.records.files import write_atomically
from metalearn_core.errors import UsageError

FORMAT = 1
PACKAGES = ("metalearn-core", "metalearn-benchmarks", "torch")
NAMES = ("experiment", "setting", "name", "scale", "seed")
"""What a cell is called, which takes no time."""


@attrs.frozen
class Timing:
    """What one job takes, all seeds that train together, in seconds.

    Args:
        set_up: everything but outer steps and validations: compiling, the test, writing the record.
        step, validation: one of them, of all seeds.
        steps, validations: how many there are.
    """

    seeds: int
    engine: str
    set_up: float
    step: float
    validation: float
    steps: int
    validations: int

    @property
    def seconds(self) -> float:
        """Of the whole job."""
        return self.set_up + self.steps * self.step + self.validations * self.validation


@attrs.frozen
class Estimate:
    """How many runs an experiment is, and how long they take; None where a program was not timed.

    `programs`: rows that differ in more than their name; `timed`: how many of them were.
    """

    runs: int
    programs: int
    timed: int
    workers: int
    seconds: float | None


@attrs.define
class Times:
    """The timings of this machine and these versions, by program; `start`: of a fresh process."""

    path: Path
    start: float = 0.0
    programs: dict[str, Timing] = attrs.field(factory=dict)

    @classmethod
    def here(cls) -> Times:
        """Those that are kept; none where the file is not there or is not what was written."""
        machine = {
            "machine": [platform.node(), platform.machine(), processor(), cores()],
            "versions": [platform.python_version(), *map(version, PACKAGES)],
        }
        name = hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]
        path = cache_folder() / f"times-{name}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["format"] == FORMAT:
                timings = {key: Timing(**timing) for key, timing in kept["programs"].items()}
                return cls(path, float(kept["start"]), timings)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass  # a cache that cannot be read is an empty one
        return cls(path)

    def of(self, cell: Cell) -> Timing | None:
        """What is known of a cell's program."""
        return self.programs.get(program_of(cell))

    def keep(self, cell: Cell, timing: Timing) -> None:
        """Remember a program's timing, in the file too."""
        self.programs[program_of(cell)] = timing
        kept = {key: attrs.asdict(timing) for key, timing in self.programs.items()}
        text = json.dumps({"format": FORMAT, "start": self.start, "programs": kept}, indent=1)
        try:
            write_atomically(self.path, text)
        except UsageError as error:
            raise UsageError(
                f"{str(error).partition(';')[0]}; set XDG_CACHE_HOME to another folder"
            ) from error


def program_of(cell: Cell) -> str:
    """Digest of all that a cell's time depends on: rows of two experiments may be one program."""
    plain: dict[str, Any] = cell.as_toml()
    for name in NAMES:
        del plain[name]
    for name in ("title", "source"):
        del plain["method"][name]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:24]


def estimate(cells: Sequence[Cell], times: Times, workers: int) -> Estimate:
    """Of all runs of an experiment, `workers` jobs at a time, in their order, without the report."""
    seeds: dict[tuple[str, str], int] = {}
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        seeds[cell.row] = seeds.get(cell.row, 0) + 1
        first.setdefault(cell.row, cell)
    timings = {row: times.of(cell) for row, cell in first.items()}
    known = {program_of(cell): timings[row] is not None for row, cell in first.items()}
    seconds = None
    if all(known.values()):
        jobs = [
            (cell.row, timing.seconds)
            for cell in cells
            if (timing := timings[cell.row]) is not None and cell.seed % timing.seeds == 0
        ]
        workers = min(workers, len(jobs))
        # workers of their own begin with a start of their own
        seconds = times.start * (1 if workers <= 1 else 2) + _in_turn([s for _, s in jobs], workers)
    return Estimate(len(cells), len(known), sum(known.values()), workers, seconds)


def _in_turn(jobs: Sequence[float], workers: int) -> float:
    """When the last job ends, where each goes to the worker that is free first."""
    free = [0.0] * max(workers, 1)
    for seconds in jobs:
        heapq.heappushpop(free, free[0] + seconds)
    return max(free)


def format_duration(seconds: float) -> str:
    """A duration as people say it: `40 s`, `6 min`, `3.5 h`, `12 days`."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * size:
            count = seconds / size
            return f"{count:.1f} {unit}" if unit == "h" and count < 10 else f"{max(round(count), 1)} {unit}"
    return f"{round(seconds / 86_400)} days"
