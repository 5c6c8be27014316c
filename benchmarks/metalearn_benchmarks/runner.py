"""Running an experiment: every cell that is missing, some at a time, resumable at any moment."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import queue
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event as Flag
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks import records
from metalearn_benchmarks.catalogue import Cell
from metalearn_benchmarks.cell import Parts, resolved, run_cell
from metalearn_benchmarks.progress import Display
from metalearn_core import Event, UsageError

Tell = Callable[[str, Event], None]
TOLD_SECONDS = 0.2
"""A worker tells of its steps at most once in this time; of all else, always."""


@attrs.define
class Outcome:
    """What became of the cells: which failed outright, which diverged and keep their best state.

    `mendable`: how many of the failures are of the kind that a user can mend.
    """

    failed: list[str] = attrs.field(factory=list)
    diverged: list[str] = attrs.field(factory=list)
    mendable: int = 0


@attrs.frozen
class Finished:
    """What one cell came to: its result, or why there is none. Neither: it was told to stop."""

    label: str
    result: dict[str, Any] | None = None
    error: str | None = None
    mendable: bool = False


def run_experiment(cells: Sequence[Cell], directory: Path, display: Display, workers: int) -> Outcome:
    """Run what is missing in `directory`, `workers` cells at a time; one that fails stops no other.

    Raises:
        UsageError: for anything that is wrong with a cell or the folder, before any cell is run.
        KeyboardInterrupt: after Ctrl-C, with everything saved.
    """
    _require_writable(directory)
    looked_at: set[int] = set()  # the family is one for all cells; its tasks depend on the task seed alone
    for cell in {cell.name: cell for cell in cells}.values():
        parts = Parts.of(cell)
        if parts.settings.task_seed not in looked_at:
            looked_at.add(parts.settings.task_seed)
            for split in ("train", "validation", "test"):
                parts.tasks(split).take(0, 1)
        records.require_same_experiment(directory, resolved(cell))
    missing = []
    for cell in cells:
        if records.is_finished(directory / cell.folder):
            records.read_record(directory / cell.folder)  # a damaged one is refused here
            display.skipped(cell.label)
        else:
            missing.append(cell)
    outcome, stop = Outcome(), multiprocessing.get_context("spawn").Event()
    run = _one_by_one if min(workers, len(missing)) <= 1 else _in_processes
    with _interrupt_sets(stop):
        for finished in run(missing, directory, display, stop, workers):
            _account(finished, display, outcome)
    if stop.is_set():
        raise KeyboardInterrupt
    return outcome


def _account(finished: Finished, display: Display, outcome: Outcome) -> None:
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
    cells: Sequence[Cell], directory: Path, display: Display, stop: Flag, workers: int
) -> Iterator[Finished]:
    for cell in cells:
        if not stop.is_set():
            yield _run_one(cell, directory, display.event, stop)


def _in_processes(
    cells: Sequence[Cell], directory: Path, display: Display, stop: Flag, workers: int
) -> Iterator[Finished]:
    context = multiprocessing.get_context("spawn")
    events: multiprocessing.Queue[tuple[str, Event]] = context.Queue()
    pool = ProcessPoolExecutor(workers, context, _enter_worker, (events, stop, os.getpid()))
    with pool:
        open_cells = {pool.submit(_run_in_worker, cell, directory): cell.label for cell in cells}
        while open_cells:
            _pass_on(events, display)
            if stop.is_set():
                open_cells = {f: label for f, label in open_cells.items() if not f.cancel()}
            for future in [future for future in open_cells if future.done()]:
                yield _result_of(future, open_cells.pop(future))


def _pass_on(events: multiprocessing.Queue[tuple[str, Event]], display: Display) -> None:
    try:
        while True:
            display.event(*events.get(timeout=0.1))
    except queue.Empty:
        return


def _result_of(future: Future[Finished], label: str) -> Finished:
    try:
        return future.result()
    except BrokenProcessPool:
        return Finished(label, error="its worker process died; the same command goes on from the checkpoint")


_worker: tuple[multiprocessing.Queue[tuple[str, Event]], Flag, int]


def _enter_worker(events: multiprocessing.Queue[tuple[str, Event]], stop: Flag, parent: int) -> None:
    global _worker  # what a pool's initialiser is for
    _worker = events, stop, parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_in_worker(cell: Cell, directory: Path) -> Finished:
    events, stop, parent = _worker
    told_at = 0.0

    def tell(label: str, event: Event) -> None:
        nonlocal told_at
        if os.getppid() != parent:  # nobody is left to work for
            raise KeyboardInterrupt
        if event.kind != "step" or time.monotonic() - told_at >= TOLD_SECONDS:
            told_at = time.monotonic()
            events.put((label, event))

    return _run_one(cell, directory, tell, stop)


def _run_one(cell: Cell, directory: Path, tell: Tell, stop: Flag) -> Finished:
    """One cell, alone in its folder; stops between two outer steps once it is told to."""

    def watch(event: Event) -> None:
        tell(cell.label, event)
        if stop.is_set():
            raise KeyboardInterrupt

    folder = directory / cell.folder
    try:
        with _alone_in(folder, lambda: watch(Event("waiting", 0))):
            if records.is_finished(folder):  # another command did it while this one waited
                return Finished(cell.label, records.read_record(folder).result)
            return Finished(cell.label, run_cell(cell, directory, [watch]))
    except KeyboardInterrupt:
        return Finished(cell.label)
    except Exception as error:
        mendable = isinstance(error, UsageError)
        text = f"{'' if mendable else f'{type(error).__name__}: '}{' '.join(str(error).split())}"
        if not mendable:
            records.write_atomically(folder / "error.txt", traceback.format_exc())
            text += f" (the traceback is in {folder / 'error.txt'})"
        return Finished(cell.label, error=text, mendable=mendable)


@contextmanager
def _alone_in(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a run's folder: a second command on the same folder waits until the first lets go."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(0.2)
        yield


def _require_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UsageError(f"{directory}: cannot be written ({error.strerror}); use another --out") from error


@contextmanager
def _interrupt_sets(stop: Flag) -> Iterator[None]:
    """Ctrl-C asks for a stop between two outer steps; a second one stops at once."""

    def ask(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        os.write(2, b"\nstopping after the step in hand; Ctrl-C again stops at once\n")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
