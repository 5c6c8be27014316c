"""The machine that runs this: its processor, its cores, and the memory that a run takes. Imports no torch."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

import psutil


def cores() -> int:
    """CPU cores that this process may use."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


def processor() -> str:
    """What the processor is called, else its architecture."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def forget_peak_memory() -> None:
    """Begin the peak of this process's memory anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory() -> int:
    """The most memory that this process has held since then, or ever, in bytes."""
    with suppress(OSError, StopIteration):
        return status("VmHWM")
    held = psutil.Process().memory_info()
    return int(getattr(held, "peak_wset", held.rss))  # Windows keeps the peak; elsewhere, what is held now


def status(name: str) -> int:
    """A line of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
