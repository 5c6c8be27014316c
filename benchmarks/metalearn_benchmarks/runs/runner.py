"""Running an experiment: every cell that is missing, some at a time, resumable at any moment."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.archive import ArchivedRun, archives_in, runs_in
from metalearn_benchmarks.records.compatibility import require_same_experiment
from metalearn_benchmarks.records.files import EXPERIMENT, RESULT
from metalearn_benchmarks.runs import seed_groups
from metalearn_benchmarks.runs.backends.local import in_processes
from metalearn_benchmarks.runs.components import Components, resolved
from metalearn_benchmarks.runs.interruption import Stop
from metalearn_benchmarks.runs.job import CellOutcome, Job, run_job
from metalearn_benchmarks.runs.progress import Progress
from metalearn_benchmarks.tasks.images.store.manifest import NotPreparedError
from metalearn_core import Processes, UsageError
from metalearn_core.errors import writing

if TYPE_CHECKING:
    from metalearn_benchmarks.runs.backends.ray.cluster import RayCluster


@attrs.define
class Outcome:
    """What became of the cells: which failed outright, which diverged and keep their best state.

    `left_out`: settings whose data are not here, and why; `not_run`: how many cells these are.
    `mendable`: how many of the failures are of the kind that a user can mend.
    """

    left_out: list[str] = attrs.field(factory=list)
    not_run: int = 0
    failed: list[str] = attrs.field(factory=list)
    diverged: list[str] = attrs.field(factory=list)
    mendable: int = 0


def run_experiment(
    cells: Sequence[Cell], directory: Path, display: Progress, workers: int,
    together: seed_groups.Size | None = None, cluster: RayCluster | None = None,
    processes: Processes | None = None,
) -> Outcome:  # fmt: skip
    """Run what is missing in `directory`, `workers` programs at a time; one that fails stops no other.

    Args:
        cells: of each row by seed.
        together: seeds of a method that are begun as one program; None: as many as are worth it and fit.
        cluster: where the programs run, as many as fit there; None: on this machine.
        processes: those that share each meta-batch, one run after the other; this is the first of them.

    Raises:
        UsageError: for anything that is wrong with a cell or the folder, before any cell is run; and for
            what keeps all others from going on too, such as a full disk. Cells whose dataset is not prepared
            are left out, unless all are.
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    _require_writable(directory)
    kept = [run for path in archives_in(directory) for run in runs_in(path)]
    archived = {Path(run.place) for run in kept}
    plans, damaged, absent = _looked_at(cells, directory, workers, together, cluster, kept)
    missing, outcome = list[Cell](), Outcome()
    _leave_out(cells, absent, display, outcome)
    for cell in [cell for cell in cells if cell.row not in absent]:
        folder = directory / cell.folder
        if cell.folder in archived or (folder not in damaged and _is_done(folder)):
            display.skipped(cell.label)
        else:
            missing.append(cell)
    jobs = seed_groups.form_groups(missing, directory, {row: plan.seeds for row, plan in plans.items()})
    stop = Stop(multiprocessing.get_context("spawn"), processes)
    with stop.on_interrupt():
        if cluster is not None:
            needs = {row: plan.bytes_per_seed for row, plan in plans.items()}
            ends = cluster.run(jobs, directory, display, stop, needs)
        elif processes is not None or min(workers, len(jobs)) <= 1:
            ends = _one_by_one(jobs, directory, display, stop, processes)
        else:
            ends = in_processes(jobs, directory, display, stop, workers)
        for job, finished in ends:
            display.end(seed_groups.label(job.cells))
            for one in finished:
                _account(one, display, outcome)
    if stop.is_set():
        raise KeyboardInterrupt
    return outcome


def _is_done(folder: Path) -> bool:
    """Whether there is a record, and one that can be read; what is not is looked at when its turn comes."""
    try:
        if record.is_finished(folder) and not record.is_sealed(folder):
            record.read_record(folder)
    except UsageError:
        return False
    return all((folder / name).exists() for name in (EXPERIMENT, RESULT))


@attrs.frozen
class Plan:
    """How many seeds of a row to begin together and, for a cluster, about what each needs there."""

    seeds: seed_groups.Size
    bytes_per_seed: int = 0


def _looked_at(
    cells: Sequence[Cell], directory: Path, workers: int, together: seed_groups.Size | None,
    cluster: RayCluster | None, archived: Sequence[ArchivedRun],
) -> tuple[dict[tuple[str, str], Plan], set[Path], dict[tuple[str, str], NotPreparedError]]:  # fmt: skip
    """The plan of each row, folders that are damaged, and rows whose data are not here.

    Raises UsageError for what could not be run.
    """
    plans: dict[tuple[str, str], Plan] = {}
    absent: dict[tuple[str, str], NotPreparedError] = {}
    looked_at: set[tuple[str, int]] = set()  # tasks depend on the family and the task seed alone
    rows = {cell.row: cell for cell in cells}
    for row, cell in rows.items():
        try:
            # a cluster's devices need not be here
            parts = Components.of(cell if cluster is None else attrs.evolve(cell, device="cpu"))
            tasks = cell.setting, parts.settings.task_seed
            if tasks not in looked_at:
                parts.require_tasks()
                looked_at.add(tasks)
            parts.require_fit(cell)
        except NotPreparedError as error:
            absent[row] = error
            continue
        programs, memory = min(workers, len(cells)), None
        if cluster is not None:
            cluster.needs(cell)
            programs, memory = 1, cluster.memory_for(cell)
        size = together
        if not isinstance(size, tuple):
            size = seed_groups.size_of(cell, parts, size, programs, memory)
        plans[row] = Plan(size, 0 if cluster is None else seed_groups.bytes_per_seed(parts))
    here = [resolved(cell) for row, cell in rows.items() if row not in absent]
    return plans, require_same_experiment(directory, here, archived), absent


def _leave_out(
    cells: Sequence[Cell],
    absent: dict[tuple[str, str], NotPreparedError],
    display: Progress,
    outcome: Outcome,
) -> None:
    """Tell of each setting that cannot be run here; UsageError if there is no other."""
    outcome.not_run = sum(cell.row in absent for cell in cells)
    if outcome.not_run == len(cells):
        raise next(iter(absent.values()))
    outcome.left_out = sorted({f"{setting} is left out: {error}" for (setting, _), error in absent.items()})
    for line in outcome.left_out:
        display.failed(line)


def _account(finished: CellOutcome, display: Progress, outcome: Outcome) -> None:
    if finished.error is not None:
        outcome.failed.append(f"{finished.label}: {finished.error}")
        outcome.mendable += finished.mendable
        display.failed(outcome.failed[-1])
    elif finished.result is not None:
        if finished.result["diverged"]:
            line = f"{finished.label}: stopped at {finished.result['diverged']}; its best state is tested"
            outcome.diverged.append(line)
            display.failed(line)
        display.finished(finished.label, finished.result)


def _one_by_one(
    jobs: Sequence[Job], directory: Path, display: Progress, stop: Stop, processes: Processes | None
) -> Iterator[tuple[Job, list[CellOutcome]]]:
    for job in jobs:
        if stop.is_set():
            return
        finished = run_job(job, directory, display.event, stop, processes)
        yield job, finished
        if processes is not None and any(one.error for one in finished):
            processes.stop = True  # the others may not be in step
            return


def _require_writable(directory: Path) -> None:
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
