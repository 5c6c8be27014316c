"""Ctrl-C: runs stop between two outer steps, or in the middle of a compilation, and workers with them.

With torchrun SIGTERM too: it passes on to all processes what it is sent, perhaps twice, and kills those that
do not end in half a minute.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metalearn_core import Processes


class Stop:
    """Whether Ctrl-C was pressed, for this process and its workers. A plain byte: a handler may not lock.

    `at_once`: whether this process loses nothing where a KeyboardInterrupt is raised at any moment.

    Args:
        context: what workers are started with.
        processes: those that share each run, where there are any: if one is to stop, all do.
    """

    def __init__(self, context: SpawnContext, processes: Processes | None = None) -> None:
        self._byte, self.at_once, self._processes = context.RawValue("b", 0), False, processes

    def is_set(self) -> bool:
        """Whether to stop."""
        return bool(self._byte.value) or (self._processes is not None and self._processes.stopping)

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
        """In it, Ctrl-C asks for a stop, of the workers too; a second one stops at once.

        With processes that share a run, the first stops when it can, and the others when all know.
        """

        def ask(*_: object) -> None:
            if self.is_set():
                raise KeyboardInterrupt
            self.set()
            os.write(2, b"\nstopping after the step in hand; Ctrl-C again stops at once\n")
            for worker in multiprocessing.active_children():
                if worker.pid is not None:
                    os.kill(worker.pid, signal.SIGINT)
            self.interrupt()

        def pass_on(*_: object) -> None:
            if self._processes is not None:
                self._processes.stop = True
                if self._processes.rank == 0:
                    self.set()
            self.interrupt()

        signals = (signal.SIGINT,) if self._processes is None else (signal.SIGINT, signal.SIGTERM)
        handler = ask if self._processes is None else pass_on
        before = {number: signal.signal(number, handler) for number in signals}
        try:
            yield
        finally:
            for number, was in before.items():
                signal.signal(number, was)

    def enter_worker(self) -> None:
        """In a worker, which was started with the signal held back: heed it only where nothing is lost."""
        signal.signal(signal.SIGINT, lambda *_: self.interrupt())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """In it Ctrl-C waits; processes that are started in it wait for it too, until they enter as workers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
