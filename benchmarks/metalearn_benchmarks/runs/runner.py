"""Running an experiment: every cell without a record, several at a time, resumable at any moment."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.host.folders import plain_name
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.archive import ArchivedRun, find_archives, read_archived_runs
from metalearn_benchmarks.records.compatibility import require_same_experiment
from metalearn_benchmarks.records.files import EXPERIMENT, RESULT
from metalearn_benchmarks.records.seal import changed_files
from metalearn_benchmarks.runs import seed_groups
from metalearn_benchmarks.runs.backends.local import run_in_processes
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.runs.interruption import InterruptFlag
from metalearn_benchmarks.runs.job import CellOutcome, Job, run_job
from metalearn_benchmarks.runs.progress import Progress
from metalearn_benchmarks.runs.resolution import resolve_cell
from metalearn_benchmarks.tasks.images.store.manifest import NotPreparedError
from metalearn_core import Processes, UsageError
from metalearn_core.errors import writing

if TYPE_CHECKING:
    from metalearn_benchmarks.runs.backends.ray.cluster import RayCluster


@attrs.define
class ExperimentOutcome:
    """The outcome of an experiment.

    Args:
        skipped_settings: A line for each setting whose data are not here.
        not_run: How many cells these settings have.
        failed: A line for each cell that failed.
        diverged: A line for each cell that diverged and has its best state tested.
        user_errors: How many failures the user can correct.
    """

    skipped_settings: list[str] = attrs.field(factory=list)
    not_run: int = 0
    failed: list[str] = attrs.field(factory=list)
    diverged: list[str] = attrs.field(factory=list)
    user_errors: int = 0


def run_experiment(
    cells: Sequence[Cell], directory: Path, display: Progress, workers: int,
    seeds_per_program: seed_groups.GroupSize | None = None, cluster: RayCluster | None = None,
    processes: Processes | None = None,
) -> ExperimentOutcome:  # fmt: skip
    """Run the cells that have no record in `directory`. A cell that fails stops no other.

    Args:
        cells: The cells, of each row by seed.
        directory: DIR.
        display: Shows the progress.
        workers: How many programs run at a time.
        seeds_per_program: How many seeds of a method start as one program. None: as many as are useful
            and fit.
        cluster: The cluster that runs the programs, as many as fit. None: this machine.
        processes: The processes that share each meta-batch, one run after the other. This is the first.

    Returns:
        What failed, diverged or was left out.

    Raises:
        UsageError: Before any run, for anything that is wrong with a cell or the folder. During the runs, for
            what also keeps all others from going on, such as a full disk. Cells whose dataset is not prepared
            are left out; this is an error only where it concerns all cells.
        KeyboardInterrupt: Ctrl-C was pressed. Everything is saved.
    """
    _require_writable(directory)
    archived_runs = [run for path in find_archives(directory) for run in read_archived_runs(path)]
    archived = {Path(*map(plain_name, run.relative_folder.parts)) for run in archived_runs}
    plans, damaged, absent = _plan_rows(cells, directory, workers, seeds_per_program, cluster, archived_runs)
    missing, outcome = list[Cell](), ExperimentOutcome()
    _skip_unprepared(cells, absent, display, outcome)
    for cell in [cell for cell in cells if cell.row not in absent]:
        folder = cell.folder_in(directory)
        if cell.folder in archived or (folder not in damaged and _is_done(folder)):
            display.skipped(cell.label)
        else:
            missing.append(cell)
    jobs = seed_groups.form_groups(missing, directory, {row: plan.seeds for row, plan in plans.items()})
    stop = InterruptFlag(multiprocessing.get_context("spawn"), processes)
    with stop.on_interrupt():
        if cluster is not None:
            needs = {row: plan.bytes_per_seed for row, plan in plans.items()}
            ends = cluster.run(jobs, directory, display, stop, needs)
        elif processes is not None or min(workers, len(jobs)) <= 1:
            ends = _run_in_turn(jobs, directory, display, stop, processes)
        else:
            ends = run_in_processes(jobs, directory, display, stop, workers)
        for job, finished in ends:
            display.end(seed_groups.group_label(job.cells))
            for one in finished:
                _add_outcome(one, display, outcome)
    if stop.is_set():
        raise KeyboardInterrupt
    return outcome


def _is_done(folder: Path) -> bool:
    """Return whether there is a readable record. A damaged one is handled when its job is run."""
    try:
        if record.is_finished(folder):
            if not record.has_valid_checksum(folder):
                record.read_record(folder)
            if changed_files(folder):
                return False
    except UsageError:
        return False
    return all((folder / name).exists() for name in (EXPERIMENT, RESULT))


@attrs.frozen
class RowPlan:
    """How the seeds of a row are run.

    Args:
        seeds: How many start together.
        bytes_per_seed: Roughly what each seed needs on a cluster.
    """

    seeds: seed_groups.GroupSize
    bytes_per_seed: int = 0


def _plan_rows(
    cells: Sequence[Cell], directory: Path, workers: int, seeds_per_program: seed_groups.GroupSize | None,
    cluster: RayCluster | None, archived: Sequence[ArchivedRun],
) -> tuple[dict[tuple[str, str], RowPlan], set[Path], dict[tuple[str, str], NotPreparedError]]:  # fmt: skip
    """Return the plan of each row, the damaged folders, and the rows whose data are not here.

    Raises UsageError for a cell that could not be run.
    """
    plans: dict[tuple[str, str], RowPlan] = {}
    absent: dict[tuple[str, str], NotPreparedError] = {}
    looked_at: set[tuple[str, int]] = set()  # tasks depend on the family and the task seed alone
    rows = {cell.row: cell for cell in cells}
    for row, cell in rows.items():
        try:
            # a cluster's devices need not be here
            components = Components.build(cell if cluster is None else attrs.evolve(cell, device="cpu"))
            tasks = cell.setting, components.settings.task_seed
            if tasks not in looked_at:
                components.require_tasks()
                looked_at.add(tasks)
            components.require_fit(cell)
        except NotPreparedError as error:
            absent[row] = error
            continue
        programs, memory = min(workers, len(cells)), None
        if cluster is not None:
            cluster.needs(cell)
            programs, memory = 1, cluster.memory_for(cell)
        size = seeds_per_program
        if not isinstance(size, tuple):
            size = seed_groups.group_size(cell, components, size, programs, memory)
        plans[row] = RowPlan(size, 0 if cluster is None else seed_groups.bytes_per_seed(components))
    here = [resolve_cell(cell) for row, cell in rows.items() if row not in absent]
    return plans, require_same_experiment(directory, here, archived), absent


def _skip_unprepared(
    cells: Sequence[Cell],
    absent: dict[tuple[str, str], NotPreparedError],
    display: Progress,
    outcome: ExperimentOutcome,
) -> None:
    """Report each setting whose data are not here; raise UsageError if there is no other."""
    outcome.not_run = sum(cell.row in absent for cell in cells)
    if outcome.not_run == len(cells):
        raise next(iter(absent.values()))
    outcome.skipped_settings = sorted(
        {f"{setting} is left out: {error}" for (setting, _), error in absent.items()}
    )
    for line in outcome.skipped_settings:
        display.failed(line)


def _add_outcome(finished: CellOutcome, display: Progress, outcome: ExperimentOutcome) -> None:
    """Add the outcome of a cell to that of the experiment, and show it."""
    if finished.error is not None:
        outcome.failed.append(f"{finished.label}: {finished.error}")
        outcome.user_errors += finished.user_error
        display.failed(outcome.failed[-1])
    elif finished.result is not None:
        if finished.result["diverged"]:
            line = f"{finished.label}: stopped at {finished.result['diverged']}; its best state is tested"
            outcome.diverged.append(line)
            display.failed(line)
        display.finished(finished.label, finished.result)


def _run_in_turn(
    jobs: Sequence[Job], directory: Path, display: Progress, stop: InterruptFlag, processes: Processes | None
) -> Iterator[tuple[Job, list[CellOutcome]]]:
    """Run jobs one after the other in this process."""
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
