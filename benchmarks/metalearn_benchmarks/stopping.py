"""Ctrl-C: runs stop between two outer steps, or in the middle of a compilation, and workers with them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext


class Stop:
    """Whether Ctrl-C was pressed, for this process and its workers. A plain byte: a handler may not lock.

    `at_once`: whether this process loses nothing where a KeyboardInterrupt is raised at any moment.
    """

    def __init__(self, context: SpawnContext) -> None:
        self._byte, self.at_once = context.RawValue("b", 0), False

    def is_set(self) -> bool:
        """Whether to stop."""
        return bool(self._byte.value)

    def set(self) -> None:
        """Ask for a stop."""
        self._byte.value = 1

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt where nothing is lost by it; once."""
        if self.at_once:
            self.at_once = False
            raise KeyboardInterrupt

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """In it, Ctrl-C asks for a stop, of the workers too; a second one stops at once."""

        def ask(*_: object) -> None:
            if self.is_set():
                raise KeyboardInterrupt
            self.set()
            os.write(2, b"\nstopping after the step in hand; Ctrl-C again stops at once\n")
            for worker in multiprocessing.active_children():
                if worker.pid is not None:
                    os.kill(worker.pid, signal.SIGINT)
            self.interrupt()

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def enter_worker(self) -> None:
        """In a worker, which was started with the signal held back: heed it only where nothing is lost."""
        signal.signal(signal.SIGINT, lambda *_: self.interrupt())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


@contextmanager
def held_back() -> Iterator[None]:
    """In it Ctrl-C waits; processes that are started in it wait for it too, until they enter as workers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
