"""Provenance: the versions, the commit, the device and the memory of a run."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.host.machine import peak_memory, processor, reset_peak_memory
from metalearn_core import BaseLearner


def provenance(
    cell: Cell, device: torch.device, engine: str, distributions: Iterable[str], seeds_together: Sequence[int]
) -> dict[str, Any]:
    """Return versions, git commit, device, and peak memory since `reset_peak`, for a record.

    Args:
        cell: The cell.
        device: Where it was run.
        engine: The engine that was chosen.
        distributions: The packages that the rule, the family and the learner come from.
        seeds_together: The seeds that trained as one program.
    """
    peak, name = peak_memory(), processor()
    if device.type == "cuda":
        peak, name = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_name(device)
    return {
        "peak_memory_bytes": peak,
        "versions": versions(distributions),
        "commit": commit(),
        "device": f"{device.type}: {name}",
        "engine": engine,
        "threads": cell.threads,
        "processes": cell.processes,
        "seeds_together": list(seeds_together),
        "protocol": cell.method.protocol,
    }


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, of this library, and of these packages."""
    packages = sorted({"metalearn-core", "metalearn-benchmarks", "torch", "higher", *distributions})
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def reset_peak(device: torch.device) -> None:
    """Reset the peak memory, so that a record does not count what its process did before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    reset_peak_memory()


def describe_batch_norm(learner: BaseLearner) -> str:
    """Describe where the learner's batch-norm layers take their statistics from."""
    norms = [m for m in learner.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return "none: the base-learner has no batch norm"
    if learner.uses_support:
        return "statistics of the task's support set, for its query set too (not transductive)"
    if all(norm.training or not norm.track_running_stats for norm in norms):
        return "statistics of each batch, at test also of the query set (transductive)"
    return "constants: the layers' own running statistics"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # a plugin registered by hand
        return "unknown"


def commit() -> str | None:
    """Return the git commit of this file, where it lies in a checkout; `-dirty` if anything differs."""
    here = Path(__file__).resolve()
    try:
        _git(
            here.parent, "ls-files", "--error-unmatch", here.name
        )  # not another project's, around an environment
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(  # noqa: S603
        ["git", "-C", str(folder), *arguments],  # noqa: S607
        capture_output=True, text=True, timeout=10, check=True,
    )  # fmt: skip
    return run.stdout.strip()
