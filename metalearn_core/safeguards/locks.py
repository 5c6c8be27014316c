"""Locks, for what only one thread at a time may do."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

import torch


class CopyableLock:
    """A lock that may be taken again by the thread that has it. A copy, also in a pickle, is a new lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def held(self) -> AbstractContextManager[object]:
        """A context that one thread at a time is in."""
        # a tracer cannot follow a lock, and nothing is computed while it traces
        return nullcontext() if torch.compiler.is_compiling() else self._lock

    def __reduce__(self) -> tuple[type[CopyableLock], tuple[()]]:
        return CopyableLock, ()


GLOBAL_GENERATOR = CopyableLock()
"""Torch's global generator, while it is seeded for one purpose."""
