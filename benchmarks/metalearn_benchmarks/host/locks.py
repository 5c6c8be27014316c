"""Locks on files: one process at a time holds one, and the system takes it back when that process ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from metalearn_core.errors import UsageError

POLL_SECONDS = 0.2
"""How often a process that waits for a lock tries again."""


def try_lock(path: Path) -> filelock.BaseFileLock | None:
    """Take the lock of a file at once, or not at all.

    Args:
        path: the file; it is made where it is missing, and stays. Its folder must exist.

    Returns:
        The lock, to be released by its `release()`; None where another process holds it.

    Raises:
        UsageError: where the file cannot be made, or its file system has no locks.
    """
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{path}: cannot be locked ({reason}), and two commands could write at once; use a folder on"
            " another file system"
        ) from error
    return lock


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of a file inside a `with`, after waiting for whoever holds it.

    Args:
        path: the file, as for `try_lock`.
        waiting: is called again and again while another process holds the lock; it may raise to give up.

    Raises:
        UsageError: as `try_lock`.
    """
    while (lock := try_lock(path)) is None:
        waiting()
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
