"""What there is to know of this library on a GPU, in under twelve minutes: tests, kernels, outer steps.

`python benchmarks/gpu_check.py` runs the tests that need a GPU, times the fused kernels for several sizes of
block, and times whole outer steps. It writes `benchmarks/gpu-check.json` after each part, so that nothing is
lost when it is stopped. `--device cpu --seconds 0.05` rehearses it where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import torch

from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.runs.results.provenance import commit
from metalearn_benchmarks.speed import outer_steps
from metalearn_benchmarks.speed.settings import Setting
from metalearn_benchmarks.speed.work import Work

ROOT = Path(__file__).resolve().parents[1]
TESTS = "tests/core/kernels/test_cuda.py"
COORDINATES, GROUPS = 1761, 30
"""The parameters of the network of the sine experiments, and the seeds of a paper-scale run."""
TURTLE = [1, 20, 20, 20, 20, 20, 1]
LSTM_INPUTS, LSTM_HIDDEN = 2, 20
BLOCKS = [(block, warps) for block in (32, 64, 128) for warps in (4, 8)]
SETTINGS = [
    *(Setting(rule=rule, tasks=tasks) for rule in ("maml", "turtle", "lstm") for tasks in (1, 25)),
    *(Setting(rule=rule, tasks=1, seeds=30) for rule in ("maml", "turtle")),
]


@attrs.frozen
class Kernel:
    """A fused kernel on random numbers.

    Args:
        name: what it is called in the report.
        call: runs it once.
        operations: useful floating-point operations of a call.
        bytes_per_coordinate: what it must read and write for one coordinate, at least.
    """

    name: str
    call: Callable[[], object]
    operations: float
    bytes_per_coordinate: int


def kernels(device: str) -> Iterator[Kernel]:
    """TURTLE's network and the LSTM's cell, forwards and backwards, float32."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    ops = torch.ops.metalearn
    weights = sum(before * after for before, after in pairwise(TURTLE))
    size = weights + sum(TURTLE[1:])
    x, y, p = draw(GROUPS, 1, 1, COORDINATES), draw(GROUPS, 1, 1, COORDINATES), draw(GROUPS, size)
    count = GROUPS * COORDINATES
    yield Kernel("network", lambda: ops.network(x, p, TURTLE, 0), 2.0 * weights * count, 8)
    yield Kernel("network_vjp", lambda: ops.network_vjp(x, p, y, TURTLE, 0), 6.0 * weights * count, 12)

    gates = 4 * LSTM_HIDDEN * (LSTM_INPUTS + LSTM_HIDDEN)
    parameters = draw(GROUPS, gates + 4 * LSTM_HIDDEN + LSTM_HIDDEN + 1)
    wide = [draw(GROUPS, 1, LSTM_HIDDEN, COORDINATES) for _ in range(4)]
    inputs = draw(GROUPS, 1, LSTM_INPUTS, COORDINATES)
    state = 4 * LSTM_HIDDEN
    yield Kernel(
        "cell", lambda: ops.cell(inputs, *wide[:2], parameters, 1),
        2.0 * (gates + LSTM_HIDDEN) * count, 4 * LSTM_INPUTS + 4 * state + 4,
    )  # fmt: skip
    yield Kernel(
        "cell_vjp", lambda: ops.cell_vjp(inputs, *wide[:2], parameters, y, *wide[2:]),
        6.0 * (gates + LSTM_HIDDEN) * count, 8 * LSTM_INPUTS + 6 * state + 4,
    )  # fmt: skip


def median_seconds(call: Callable[[], object], device: str, seconds: float) -> float:
    """The median of a call that is waited for, after three that are not counted."""
    times: list[float] = []
    for index in range(10**6):
        begun = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        if index >= 3:
            times.append(time.perf_counter() - begun)
        if len(times) >= 5 and sum(times) >= seconds:
            break
    return statistics.median(times)


def machine(device: str, seconds: float) -> dict[str, Any]:
    """The device, and the rates that shares refer to: a large product in float32, a large copy."""
    side = 8192 if device == "cuda" else 512
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    product = median_seconds(lambda: a @ b, device, seconds)
    copied = median_seconds(lambda: b.copy_(a), device, seconds)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    rates = {"operations_per_second": 2 * side**3 / product, "bytes_per_second": 8 * side**2 / copied}
    return {"device": name, "torch": torch.__version__, "commit": commit(), **rates}


def tests(device: str, seconds: float) -> dict[str, Any]:
    """The tests that need a GPU: how many passed, failed and were skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    last = run.stdout.strip().splitlines()[-1] if run.stdout.strip() else run.stderr[-500:]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    return {"exit": run.returncode, **counts, "output": run.stdout[-4000:] if run.returncode else ""}


def kernel_times(device: str, seconds: float) -> list[dict[str, Any]]:
    """Each kernel for each size of block; on a CPU there is but one."""
    found = []
    for block, warps in BLOCKS if device == "cuda" else [(0, 0)]:
        if device == "cuda":
            from metalearn_core.kernels import coordinatewise_gpu

            coordinatewise_gpu.BLOCK, coordinatewise_gpu.WARPS = block, warps
        for kernel in kernels(device):
            row: dict[str, Any] = {"kernel": kernel.name, "block": block, "warps": warps}
            try:
                took = median_seconds(kernel.call, device, seconds)
            except Exception as error:  # a block that needs more registers than there are
                found.append({**row, "error": str(error)[:300]})
                continue
            least = kernel.bytes_per_coordinate * GROUPS * COORDINATES
            rates = {"operations_per_second": kernel.operations / took, "bytes_per_second": least / took}
            found.append({**row, "milliseconds": 1000 * took, **rates})
    return found


def step_times(device: str, seconds: float) -> list[dict[str, Any]]:
    """Whole outer steps of this engine, compiled, as `metalearn speed` times them."""
    found = []
    for setting in SETTINGS:
        made = Work.of(setting)
        work = attrs.evolve(made, rule=made.rule.to(device), learner=made.learner.to(device))
        row: dict[str, Any] = {"setting": str(setting), "operations": work.operations}
        try:
            clock = outer_steps.clocked("compiled", work, 10 * seconds)
        except Exception as error:  # one setting that fails does not take the others with it
            found.append({**row, "error": str(error)[:300]})
            continue
        took = statistics.median(clock.times)
        rates = {"first_call_seconds": clock.first, "operations_per_second": work.operations / took}
        found.append({**row, "milliseconds": 1000 * took, **rates})
    return found


PARTS: dict[str, Callable[[str, float], Any]] = {
    "machine": machine,
    "tests": tests,
    "kernels": kernel_times,
    "outer steps": step_times,
}


def main() -> int:
    """Run each part while time is left; write what there is after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long one kernel is timed")
    parser.add_argument("--minutes", type=float, default=11.0, help="no part begins after these")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu-check.json")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "gpu_check: no CUDA device is here; --device cpu rehearses\n")
    begun = time.monotonic()
    report: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds")}
    for name, part in PARTS.items():
        if time.monotonic() - begun > 60 * given.minutes:
            report[name] = f"left out: {given.minutes:g} minutes were over"
        else:
            print(f"{name} ...", flush=True)  # noqa: T201
            report[name] = part(given.device, given.seconds)
        report["seconds"] = round(time.monotonic() - begun, 1)
        write_atomically(given.out, json.dumps(report, indent=1) + "\n")
    print(f"written: {given.out}")  # noqa: T201
    return int(isinstance(report["tests"], dict) and report["tests"]["exit"] != 0)


if __name__ == "__main__":
    sys.exit(main())
