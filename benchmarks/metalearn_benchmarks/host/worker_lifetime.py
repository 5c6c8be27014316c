"""A worker process ends with the one that began it: a pool's would wait for its next job for ever."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent(busy: threading.Lock | None = None) -> None:
    """End this process, at once and without a word, when the one that began it has ended.

    Args:
        busy: held while there is something to save first.
    """
    threading.Thread(target=_end_with_parent, args=(busy or threading.Lock(),), daemon=True).start()


def _end_with_parent(busy: threading.Lock) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        busy.acquire()
        os._exit(0)
