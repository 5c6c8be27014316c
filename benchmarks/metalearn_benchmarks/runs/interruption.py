"""Ctrl-C: runs stop between two outer steps, or during a compilation, and their workers stop with them.

Under torchrun SIGTERM is handled, too: torchrun passes on every signal to all processes, perhaps twice, and
kills those that do not end within half a minute.
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


class InterruptFlag:
    """Whether Ctrl-C was pressed, shared by this process and its workers.

    It is a plain byte, because a signal handler must not take a lock.

    Args:
        context: The multiprocessing context that workers are started with.
        processes: The processes that share each run, if any. If one of them stops, all do.

    Attributes:
        interruptible: Whether this process loses nothing if a KeyboardInterrupt is raised at any moment.
    """

    def __init__(self, context: SpawnContext, processes: Processes | None = None) -> None:
        self._byte, self.interruptible, self._processes = context.RawValue("b", 0), False, processes

    def is_set(self) -> bool:
        """Return whether to stop."""
        return bool(self._byte.value) or (self._processes is not None and self._processes.stopping)

    def set(self) -> None:
        """Request a stop."""
        self._byte.value = 1

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt, once, if this process is interruptible."""
        if self.interruptible:
            self.interruptible = False
            raise KeyboardInterrupt

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Handle Ctrl-C in this context: the first requests a stop, of workers too; the second stops at once.

        With processes that share a run, the first process stops when it can, and the others when
        all know of it.
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
        """Set up the signal in a worker, which was started while it was blocked."""
        signal.signal(signal.SIGINT, lambda *_: self.interrupt())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Block Ctrl-C in this context. Processes that start in it keep it blocked until `enter_worker`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
