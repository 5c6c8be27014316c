"""A worker process ends with its parent. Without this, a worker of a pool waits for its next job for ever."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent(busy: threading.Lock | None = None) -> None:
    """End this process, at once and without a message, as soon as its parent process has ended.

    Args:
        busy: A lock that delays the end. Whoever has something to save holds it meanwhile.
    """
    threading.Thread(target=_end_with_parent, args=(busy or threading.Lock(),), daemon=True).start()


def _end_with_parent(busy: threading.Lock) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        busy.acquire()
        os._exit(0)
