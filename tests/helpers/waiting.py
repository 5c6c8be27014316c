"""How tests wait for other processes: on a machine that others use, too, a limit is for what hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

LONG = 900
"""In seconds; some commands compile programs in several processes."""


def wait_until(happened: Callable[[], Found]) -> Found:
    """What it returns, as soon as that is true."""
    deadline = time.monotonic() + LONG
    while not (found := happened()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found
