"""The machine that runs this: its processor, its cores, and its memory. Imports no torch."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import psutil

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows has none
    resource = None


def cores() -> int:
    """Count the CPU cores that this process may use."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


def processor() -> str:
    """Return the name of the processor, or its architecture where it has no name."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def free_memory() -> int:
    """Return how many bytes of main memory the system can give without swapping."""
    return int(psutil.virtual_memory().available)


def reset_peak_memory() -> None:
    """Start the measurement of `peak_memory` anew. Only Linux can; elsewhere this does nothing."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory() -> int:
    """Return the most memory that this process has held, in bytes.

    On Linux this counts from the last `reset_peak_memory`, elsewhere from the start of the process.
    """
    with suppress(OSError, StopIteration):
        return process_status("VmHWM")
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        return int(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))  # the peak has this name on Windows


def process_status(field: str) -> int:
    """Read one size of `/proc/self/status`.

    Args:
        field: The name of the line, such as `VmRSS`.

    Returns:
        The size in bytes.

    Raises:
        OSError: The system is not Linux.
        StopIteration: There is no such line.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
