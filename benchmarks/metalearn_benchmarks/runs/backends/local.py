"""Worker processes on this machine, each with a program at a time; one that dies takes no other with it."""

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
from metalearn_benchmarks.runs.interruption import Stop, interrupts_held_back
from metalearn_benchmarks.runs.job import TOLD_SECONDS, CellOutcome, Job, finished_of, run_job
from metalearn_benchmarks.runs.progress import Progress
from metalearn_core import Event, UsageError


@attrs.frozen(eq=False)
class Worker:
    """One process, and what it tells: a pool of many breaks as a whole, as does a queue that they share."""

    pool: ProcessPoolExecutor
    events: multiprocessing.Queue[tuple[str, Event]]

    @classmethod
    def ready(cls, stop: Stop) -> Worker:
        """A worker that begins with its first job."""
        context = multiprocessing.get_context("spawn")
        events: multiprocessing.Queue[tuple[str, Event]] = context.Queue()
        return cls(ProcessPoolExecutor(1, context, _enter_worker, (events, stop, os.getpid())), events)

    def begin(self, job: Job, directory: Path) -> Future[list[CellOutcome]]:
        """Give it a job; Ctrl-C waits meanwhile."""
        with interrupts_held_back():
            return self.pool.submit(_run_in_worker, job, directory)

    def pass_on(self, display: Progress) -> set[str]:
        """Show what it has told since the last time; the labels of those that it told of."""
        heard: set[str] = set()
        try:
            while True:
                label, event = self.events.get_nowait()
                heard.add(label)
                display.event(label, event)
        except queue.Empty:
            return heard


def in_processes(
    jobs: Sequence[Job], directory: Path, display: Progress, stop: Stop, workers: int
) -> Iterator[tuple[Job, list[CellOutcome]]]:
    """Run jobs, `workers` at a time, and yield each with what became of its cells.

    A worker that dies is replaced, and its job told as failed. Raises UsageError for what would keep all
    others from going on too.
    """
    waiting, running = deque(jobs), dict[Future[list[CellOutcome]], tuple[Job, Worker]]()
    idle, begun = [Worker.ready(stop) for _ in range(min(workers, len(jobs)))], set[str]()
    with ExitStack() as ends:
        for worker in idle:
            ends.callback(worker.pool.shutdown)
        while running or (waiting and not stop.is_set()):
            while idle and waiting and not stop.is_set():
                job, worker = waiting.popleft(), idle.pop()
                running[worker.begin(job, directory)] = job, worker
            time.sleep(0.1)
            for _, worker in running.values():
                begun |= worker.pass_on(display)
            if stop.is_set():  # those that are loading what they need have nothing to save
                running = {f: x for f, x in running.items() if seed_groups.label(x[0].cells) in begun}
            for future in [future for future in running if future.done()]:
                job, worker = running.pop(future)
                worker.pass_on(display)
                try:
                    finished = _result_of(future, job, directory)
                except UsageError:  # no other would go on either
                    stop.set()
                    raise
                if isinstance(future.exception(), BrokenProcessPool):
                    worker = Worker.ready(stop)
                    ends.callback(worker.pool.shutdown)
                idle.append(worker)
                yield job, finished
        if stop.is_set():
            for process in multiprocessing.active_children():
                process.kill()


def _result_of(future: Future[list[CellOutcome]], job: Job, directory: Path) -> list[CellOutcome]:
    try:
        return future.result()
    except BrokenProcessPool:
        told = "its worker process died; the same command goes on from the checkpoint"
        return [finished_of(cell, directory, told) for cell in job]


_worker: tuple[multiprocessing.Queue[tuple[str, Event]], Stop, int]
_busy = threading.Lock()
"""Held while a worker has a job: it saves before it ends."""


def _enter_worker(events: multiprocessing.Queue[tuple[str, Event]], stop: Stop, parent: int) -> None:
    global _worker  # what a pool's initialiser is for
    _worker = events, stop, parent
    end_with_parent(_busy)
    events.cancel_join_thread()  # what nobody reads any more must not keep the process
    atexit.register(os._exit, 0)  # of what is loaded the interpreter's own end takes seconds
    stop.enter_worker()


def _run_in_worker(job: Job, directory: Path) -> list[CellOutcome]:
    events, stop, parent = _worker
    told_at = 0.0

    def tell(label: str, event: Event) -> None:
        nonlocal told_at
        if os.getppid() != parent:  # nobody is left to work for
            raise KeyboardInterrupt
        if event.kind not in ("step", "evaluating", "testing") or time.monotonic() - told_at >= TOLD_SECONDS:
            told_at = time.monotonic()
            events.put((label, event))

    with _busy:
        events.put((seed_groups.label(job.cells), Event("begun", 0)))
        return run_job(job, directory, tell, stop)
