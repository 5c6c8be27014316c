"""Measurements that need a fresh process: its memory, and the time until its first meta-gradient."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.host.machine import peak_memory, process_status, reset_peak_memory
from metalearn_benchmarks.speed.settings import Setting
from metalearn_benchmarks.speed.timing import Timing

STARTS = ("eager", "compiled", "jax")
"""Peers whose start is timed: those that compile, and the one that does not, for comparison."""
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME",
          "JAX_COMPILATION_CACHE_DIR")  # fmt: skip
KEEP_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

Make = Callable[[], Callable[[], Any]]


def with_memory(timing: Timing) -> Timing:
    """Return the timing with the memory of its peer, measured in a process of its own."""
    try:
        call, process = _child("memory", timing, {}).values()
    except ChildProcessError as error:
        return attrs.evolve(timing, note=str(error))
    return attrs.evolve(timing, call_memory=call, process_memory=process)


def with_starts(timing: Timing) -> Timing:
    """Return the timing with its cold and warm start: two processes share caches that are empty at first."""
    if timing.peer not in STARTS:
        return timing
    with tempfile.TemporaryDirectory() as directory:
        caches = {name: str(Path(directory, name.lower())) for name in CACHES} | KEEP_ALL
        try:
            cold, warm = (_seconds_to_first(timing, caches) for _ in range(2))
        except ChildProcessError as error:
            return attrs.evolve(timing, note=str(error))
    return attrs.evolve(timing, cold=cold, warm=warm)


def _seconds_to_first(timing: Timing, variables: Mapping[str, str]) -> float:
    start = time.time()
    return _child("start", timing, variables)["done"] - start


def _child(part: str, timing: Timing, variables: Mapping[str, str]) -> dict[str, float]:
    setting = json.dumps(attrs.asdict(timing.setting))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", __name__, part, timing.peer, setting],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise ChildProcessError(f"its own process failed: {line}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _start(make: Make) -> dict[str, float]:
    make()()
    return {"done": time.time()}


def _memory(make: Make) -> dict[str, float]:
    """Peaks of resident memory in MB; what is free is given back first, so that a call's own is seen."""
    step = make()
    step()
    at_first = peak_memory() / 1e6
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    held = process_status("VmRSS") / 1e6
    reset_peak_memory()
    for _ in range(3):
        step()
    peak = peak_memory() / 1e6
    return {"call_memory": max(0.0, peak - held), "process_memory": max(at_first, peak)}


def main(part: str, peer: str, setting: str) -> None:
    """Measure in the child process, and print the result as JSON.

    Args:
        part: `memory` or `start`.
        peer: Name of the peer.
        setting: The setting as JSON.
    """
    from metalearn_benchmarks.speed.cores import pinned
    from metalearn_benchmarks.speed.measure import call
    from metalearn_benchmarks.speed.work import Work

    given = Setting(**json.loads(setting))
    with pinned(given.threads):
        found = {"memory": _memory, "start": _start}[part](lambda: call(peer, Work.of(given)))
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
