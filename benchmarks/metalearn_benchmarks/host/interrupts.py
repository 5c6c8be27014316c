"""Ctrl-C: every command ends with the same exit code, and no set of files is left half-written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Whether Ctrl-C was pressed, also where the KeyboardInterrupt that it raised was lost.

    A KeyboardInterrupt that rises in a destructor or in a callback of compiled code is printed and dropped.
    """

    def __init__(self) -> None:
        self.pressed = False

    def hear(self, _number: int, _frame: FrameType | None) -> None:
        """Note it and raise KeyboardInterrupt, as a handler of the signal."""
        self.pressed = True
        raise KeyboardInterrupt


@contextmanager
def watched_interrupts() -> Iterator[Interrupts]:
    """Note in this context whether Ctrl-C was pressed. Threads hear no signals: there it notes nothing."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, interrupts.hear)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def delayed_interrupts() -> Iterator[None]:
    """Let this context come to its end before Ctrl-C is heard. It must be short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[FrameType | None] = []
    before = signal.signal(signal.SIGINT, lambda _number, frame: pressed.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed and callable(before):
            before(signal.SIGINT, pressed[0])
