"""Worker processes on this machine, each with one program at a time. A worker that dies affects no other."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path

import attrs

from metalearn_benchmarks.host.worker_lifetime import end_with_parent
from metalearn_benchmarks.runs import seed_groups
from metalearn_benchmarks.runs.interruption import InterruptFlag, interrupts_deferred
from metalearn_benchmarks.runs.job import STEP_REPORT_SECONDS, CellOutcome, Job, outcome_of_cell, run_job
from metalearn_benchmarks.runs.progress import Progress
from metalearn_core import Event, UsageError


@attrs.frozen(eq=False)
class Worker:
    """A worker process and the queue of its events.

    Each worker has a pool and a queue of its own, since a process that dies breaks a shared one for all.

    Args:
        pool: The pool with its one process.
        events: The events of the runs, each with its label.
    """

    pool: ProcessPoolExecutor
    events: multiprocessing.Queue[tuple[str, Event]]

    @classmethod
    def start(cls, stop: InterruptFlag) -> Worker:
        """Make a worker. Its process starts with the first job."""
        context = multiprocessing.get_context("spawn")
        events: multiprocessing.Queue[tuple[str, Event]] = context.Queue()
        return cls(ProcessPoolExecutor(1, context, _enter_worker, (events, stop, os.getpid())), events)

    def submit(self, job: Job, directory: Path) -> Future[list[CellOutcome]]:
        """Give a job to the worker. Ctrl-C is blocked meanwhile."""
        with interrupts_deferred():
            return self.pool.submit(_run_in_worker, job, directory)

    def forward_events(self, display: Progress) -> set[str]:
        """Show the events since the last call, and return the labels of their runs."""
        heard: set[str] = set()
        try:
            while True:
                label, event = self.events.get_nowait()
                heard.add(label)
                display.event(label, event)
        except queue.Empty:
            return heard


def run_in_processes(
    jobs: Sequence[Job], directory: Path, display: Progress, stop: InterruptFlag, workers: int
) -> Iterator[tuple[Job, list[CellOutcome]]]:
    """Run jobs, `workers` at a time, and yield each with the outcomes of its cells.

    A worker that dies is replaced, and its job fails.

    Args:
        jobs: The jobs.
        directory: DIR.
        display: Shows the progress.
        stop: Whether to stop.
        workers: How many jobs run at a time.

    Raises:
        UsageError: Something also keeps all other jobs from going on.
    """
    waiting, running = deque(jobs), dict[Future[list[CellOutcome]], tuple[Job, Worker]]()
    idle, started = [Worker.start(stop) for _ in range(min(workers, len(jobs)))], set[str]()
    with ExitStack() as ends:
        for worker in idle:
            ends.callback(worker.pool.shutdown)
        while running or (waiting and not stop.is_set()):
            while idle and waiting and not stop.is_set():
                job, worker = waiting.popleft(), idle.pop()
                running[worker.submit(job, directory)] = job, worker
            time.sleep(0.1)
            for _, worker in running.values():
                started |= worker.forward_events(display)
            if stop.is_set():  # those that are loading what they need have nothing to save
                running = {f: x for f, x in running.items() if seed_groups.group_label(x[0].cells) in started}
            for future in [future for future in running if future.done()]:
                job, worker = running.pop(future)
                worker.forward_events(display)
                try:
                    finished = _outcomes_of(future, job, directory)
                except UsageError:  # no other would go on either
                    stop.set()
                    raise
                if isinstance(future.exception(), BrokenProcessPool):
                    worker = Worker.start(stop)
                    ends.callback(worker.pool.shutdown)
                idle.append(worker)
                yield job, finished
        if stop.is_set():
            for process in multiprocessing.active_children():
                process.kill()


def _outcomes_of(future: Future[list[CellOutcome]], job: Job, directory: Path) -> list[CellOutcome]:
    try:
        return future.result()
    except BrokenProcessPool:
        error = "its worker process died; the same command goes on from the checkpoint"
        return [outcome_of_cell(cell, directory, error) for cell in job]


_worker: tuple[multiprocessing.Queue[tuple[str, Event]], InterruptFlag, int]
_busy = threading.Lock()
"""Held while a worker has a job, so that it saves before it ends."""


def _enter_worker(events: multiprocessing.Queue[tuple[str, Event]], stop: InterruptFlag, parent: int) -> None:
    global _worker  # what a pool's initialiser is for
    _worker = events, stop, parent
    end_with_parent(_busy)
    events.cancel_join_thread()  # what nobody reads any more must not keep the process
    atexit.register(os._exit, 0)  # of what is loaded the interpreter's own end takes seconds
    stop.enter_worker()


def _run_in_worker(job: Job, directory: Path) -> list[CellOutcome]:
    events, stop, parent = _worker
    reported_at = 0.0

    def tell(label: str, event: Event) -> None:
        nonlocal reported_at
        if os.getppid() != parent:  # nobody is left to work for
            raise KeyboardInterrupt
        if (
            event.kind not in ("step", "evaluating", "testing")
            or time.monotonic() - reported_at >= STEP_REPORT_SECONDS
        ):
            reported_at = time.monotonic()
            events.put((label, event))

    with _busy:
        events.put((seed_groups.group_label(job.cells), Event("begun", 0)))
        return run_job(job, directory, tell, stop)
