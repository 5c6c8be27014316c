"""The cores that a measurement may use, and their speed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Let all threads of this process share `threads` cores, and let no library start more threads.

    A library's own setting is not enough: JAX has none that holds after its start.
    """
    cores, before = os.sched_getaffinity(0), torch.get_num_threads()
    try:
        _use(set(sorted(cores)[-threads:]), threads)  # the first core has interrupts to serve
        yield
    finally:
        _use(cores, before)


def _use(cores: set[int], threads: int) -> None:
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(thread), cores)
    torch.set_num_threads(threads)
    if "jax" in sys.modules:
        import jax.extend

        restart: Callable[[], None] = jax.extend.backend.clear_backends
        restart()  # it counts the cores once, when it starts


def peak_rate(size: int = 1024, seconds: float = 0.3) -> float:
    """Return operations a second of the fastest large matrix product.

    Args:
        size: Rows and columns of the matrices.
        seconds: How long products are timed.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    times: list[float] = []
    while sum(times) < seconds or len(times) < 5:
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)
