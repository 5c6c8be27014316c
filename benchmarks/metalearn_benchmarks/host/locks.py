"""Locks on files: one process at a time holds one, and the system takes it back when that process ends."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from metalearn_core.errors import UsageError

POLL_SECONDS = 0.2
"""How often a process that waits for a lock tries again."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers."""


def try_lock(path: Path) -> filelock.BaseFileLock | None:
    """Take the lock of a file at once, or not at all.

    Args:
        path: The file. It is made where it is missing, and it stays.

    Returns:
        The lock, to be released by its `release()`; None where another process holds it.

    Raises:
        UsageError: The file system has no locks.
        OSError: The file cannot be made or opened.
    """
    # No soft lock in its place: the empty file of an earlier command would count as held for ever.
    lock = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise UsageError(
            f"{path}: cannot be locked ({error.strerror}), and two commands could write at once; use a folder"
            " on another file system"
        ) from error
    return lock


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of a file inside a `with`, after waiting for whoever holds it.

    Args:
        path: The file, as for `try_lock`.
        waiting: Called again and again while another process holds the lock. It may raise to give up.

    Raises:
        UsageError: The file system has no locks.
        OSError: The file cannot be made or opened.
    """
    while (lock := try_lock(path)) is None:
        waiting()
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
