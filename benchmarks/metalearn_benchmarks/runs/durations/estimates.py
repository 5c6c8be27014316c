"""Estimates of how long an experiment takes on this machine, from timings that were taken here.

The timings are in the user's cache folder, in one file for each machine and set of versions. `measuring`
takes them. Imports no torch.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.experiments.cell import Cell
from metalearn_benchmarks.experiments.method import BACKPROPAGATION
from metalearn_benchmarks.host.machine import cores, processor
from metalearn_benchmarks.host.user_folders import cache_folder
from metalearn_benchmarks.records.files import write_atomically
from metalearn_core.errors import UsageError

FORMAT = 1
"""The format of the file."""
PACKAGES = ("metalearn-core", "metalearn-benchmarks", "torch")
"""Packages whose versions a timing depends on."""
NAMING_FIELDS = ("experiment", "setting", "name", "scale", "seed")
"""Fields of a cell that only name it, and do not change its time."""
LENGTHS = ("tasks", "validation_interval", "validation_tasks")
"""Settings that say how long a program runs, and not what it does."""
COMPILED_STEPS = 10_000
"""`LONG_RUN` of metalearn_core.settings: the outer steps from which a program is compiled."""


@attrs.frozen
class Timing:
    """The time of one job, which is all seeds that train together.

    Args:
        seeds: How many seeds train together.
        engine: The engine of the inner loop.
        set_up: Seconds of everything but outer steps and validations: compilation, the test, the record.
        step: Seconds of an outer step of all seeds.
        validation: Seconds of a validation of all seeds.
        steps: Number of outer steps.
        validations: Number of validations.
        validation_tasks: Tasks of each validation; 0 where it was not kept.
    """

    seeds: int
    engine: str
    set_up: float
    step: float
    validation: float
    steps: int
    validations: int
    validation_tasks: int = 0

    @property
    def seconds(self) -> float:
        """Seconds of the whole job."""
        return self.set_up + self.steps * self.step + self.validations * self.validation


@attrs.frozen
class Estimate:
    """The size of an experiment, and how long it takes.

    Args:
        runs: Number of runs.
        programs: Number of rows that differ in more than their name.
        timed: How many of these programs were timed.
        workers: How many jobs run at a time.
        seconds: The whole time, or None where a program was not timed.
    """

    runs: int
    programs: int
    timed: int
    workers: int
    seconds: float | None


@attrs.define
class TimingCache:
    """The timings that were taken on this machine with these versions.

    Args:
        path: The file that holds them.
        start: Seconds that a fresh process takes to start; 0 where this was not measured.
        programs: The timing of each program, by its digest.
        sisters: The digest of a program that was timed, by what all its lengths share.
    """

    path: Path
    start: float = 0.0
    programs: dict[str, Timing] = attrs.field(factory=dict)
    sisters: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def load(cls) -> TimingCache:
        """Read the cache. It is empty where the file is missing or damaged."""
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
                return cls(path, float(kept["start"]), timings, dict(kept.get("sisters", {})))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass  # a cache that cannot be read is an empty one
        return cls(path)

    def get(self, cell: Cell) -> Timing | None:
        """Return the timing of a cell's program, or None."""
        return self.programs.get(program_digest(cell))

    def closest(self, cell: Cell) -> Timing | None:
        """Return the timing of a cell's program, or what follows from that of a sister, or None.

        A sister is the same program with another number of tasks, of training or of validation.
        """
        exact = self.get(cell)
        sister = self.programs.get(self.sisters.get(_sister_digest(cell), ""))
        if exact is not None or sister is None or not cell.method.trains:
            return exact
        steps, validations, validation_tasks = run_length(cell.method.settings)
        known = sister.validation_tasks and validation_tasks
        return attrs.evolve(
            sister,
            steps=steps,
            validations=validations,
            validation=sister.validation * (validation_tasks / sister.validation_tasks if known else 1),
        )

    def put(self, cell: Cell, timing: Timing) -> None:
        """Add the timing of a cell's program, and write the file.

        Raises:
            UsageError: The file cannot be written.
        """
        self.programs[program_digest(cell)] = timing
        self.sisters[_sister_digest(cell)] = program_digest(cell)
        kept = {key: attrs.asdict(timing) for key, timing in self.programs.items()}
        whole = {"format": FORMAT, "start": self.start, "programs": kept, "sisters": self.sisters}
        text = json.dumps(whole, indent=1)
        try:
            write_atomically(self.path, text)
        except UsageError as error:
            raise UsageError(
                f"{str(error).partition(';')[0]}; set XDG_CACHE_HOME to another folder"
            ) from error


def run_length(settings: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return how many outer steps, validations and tasks of a validation settings ask for.

    There is a validation at 0, at every multiple of the interval, and at the end. What is left to a default
    counts as 0.
    """
    tasks, interval = int(settings.get("tasks", 0)), int(settings.get("validation_interval", 0))
    validations = 1 + -(-tasks // interval) if tasks and interval else 0
    return (
        -(-tasks // int(settings.get("meta_batch", 1))),
        validations,
        int(settings.get("validation_tasks", 0)),
    )


def _sister_digest(cell: Cell) -> str:
    """Return the digest of what programs share that differ in their length alone, and in no engine."""
    settings = dict(cell.method.settings)
    steps, _, _ = run_length(settings)
    if settings.get("engine", "auto") == "auto":
        settings["engine"] = "compiled" if steps >= COMPILED_STEPS else "eager"
    for name in LENGTHS:
        settings.pop(name, None)
    return _digest(attrs.evolve(cell, test_tasks=1, method=attrs.evolve(cell.method, settings=settings)))


def program_digest(cell: Cell) -> str:
    """Return the digest of everything that a cell's time depends on. Two rows may be the same program."""
    return _digest(cell)


def _digest(cell: Cell) -> str:
    plain: dict[str, Any] = cell.as_toml()
    for name in NAMING_FIELDS:
        del plain[name]
    for name in ("title", "source"):
        del plain["method"][name]
    if cell.method.meta_gradient == BACKPROPAGATION:  # what was timed before had no other
        del plain["method"]["meta_gradient"], plain["method"]["meta_gradient_options"]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:24]


def estimate(cells: Sequence[Cell], cache: TimingCache, workers: int) -> Estimate:
    """Estimate the time of all runs of an experiment, without the report.

    Args:
        cells: The cells, in the order in which they run.
        cache: The timings.
        workers: How many jobs run at a time.
    """
    seeds: dict[tuple[str, str], int] = {}
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        seeds[cell.row] = seeds.get(cell.row, 0) + 1
        first.setdefault(cell.row, cell)
    timings = {row: cache.closest(cell) for row, cell in first.items()}
    known = {program_digest(cell): timings[row] is not None for row, cell in first.items()}
    seconds = None
    if all(known.values()):
        jobs = [
            (cell.row, timing.seconds)
            for cell in cells
            if (timing := timings[cell.row]) is not None and cell.seed % timing.seeds == 0
        ]
        workers = min(workers, len(jobs))
        # workers of their own begin with a start of their own
        seconds = cache.start * (1 if workers <= 1 else 2) + _end_of_last_job([s for _, s in jobs], workers)
    return Estimate(len(cells), len(known), sum(known.values()), workers, seconds)


def _end_of_last_job(jobs: Sequence[float], workers: int) -> float:
    """Return when the last job ends, if each goes to the worker that is free first."""
    free = [0.0] * max(workers, 1)
    for seconds in jobs:
        heapq.heappushpop(free, free[0] + seconds)
    return max(free)


def format_duration(seconds: float) -> str:
    """Return a duration in words: `40 s`, `6 min`, `3.5 h`, `12 days`."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * size:
            count = seconds / size
            return f"{count:.1f} {unit}" if unit == "h" and count < 10 else f"{max(round(count), 1)} {unit}"
    return f"{round(seconds / 86_400)} days"
