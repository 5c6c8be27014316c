"""Where the runs of a command run: on this machine, on Ray or under torchrun; and what is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from metalearn_core.errors import UsageError

MOST_RECORDED_THREADS = 64
"""Threads of a run that is computed again: it repeats only with as many, whatever cores there are."""
WORKERS_PER_CORE, FEWEST_WORKERS = 8, 64
"""The most programs at a time on a machine: so many for each core, and so many in any case."""


def require_possible_here(cell: Any, workers: int | None, processes: int, recorded: bool) -> None:
    """Raise UsageError for a device that is not here, or more threads or programs than are of any use."""
    from metalearn_benchmarks.host.machine import cores
    from metalearn_benchmarks.runs.components import usable_device

    most_threads = max(cores(), MOST_RECORDED_THREADS if recorded else 1)
    most_workers = max(WORKERS_PER_CORE * cores(), FEWEST_WORKERS)
    for option, given, most in (
        ("--threads", cell.threads, most_threads),
        ("--workers", workers, most_workers),
    ):
        if given is not None and given > most:
            raise UsageError(
                f"{option} {given}: on the {cores()} core(s) there are, the most is {most}; ask for fewer"
            )
    if processes == 1:  # torchrun gives each process a device of its own, and looks at it
        usable_device(cell.device)


def torchrun_processes() -> int:
    """The number of processes that torchrun has started for this run; 1 without torchrun."""
    size = os.environ.get("WORLD_SIZE", "1") if {"RANK", "MASTER_ADDR"} <= os.environ.keys() else "1"
    return int(size) if size.isascii() and size.isdecimal() else 1


def require_one_backend(workers: int | None, address: str | None, processes: int) -> None:
    """Raise UsageError where several of worker processes, Ray and torchrun are asked for."""
    backends = [] if workers is None else [f"--workers {workers} (programs on this machine)"]
    backends += [] if address is None else [f"--ray {address} (programs on a cluster)"]
    backends += [] if processes == 1 else [f"torchrun ({processes} processes for one run at a time)"]
    if len(backends) > 1:
        raise UsageError(f"{' and '.join(backends)} exclude each other: use one of them")


def observers_take_stdout(observe: tuple[str, ...], address: str | None, as_json: bool) -> bool:
    """Whether an observer has standard output to itself.

    Args:
        observe: Names of the observers that are asked for.
        address: The address of a Ray cluster, or None.
        as_json: Whether the command itself prints JSON there.

    Raises:
        UsageError: An observer is unknown, or would write on standard output where it cannot.
    """
    from metalearn_benchmarks.runs.observers import dispatch

    dispatch.require_observers(observe)
    taken = dispatch.any_writes_stdout(observe)
    if taken and as_json:
        raise UsageError(
            "--json: an observer that is asked for writes on standard output, too; leave one of them out"
        )
    if taken and address is not None:
        raise UsageError(
            f"--ray {address}: an observer that writes on standard output would write on the cluster's nodes;"
            " run it with --workers"
        )
    return taken


def process_group(cells: Sequence[Any]) -> AbstractContextManager[Any]:
    """The group of processes that torchrun started, or None. Only the first process returns from it."""
    if cells[0].processes == 1:
        return nullcontext()
    from metalearn_benchmarks.runs.backends.torchrun import join_processes, require_shares

    require_shares(cells)
    return join_processes(cells[0].device)


def ray_cluster(address: str | None) -> AbstractContextManager[Any]:
    """The Ray cluster at an address, or None."""
    if address is None:
        return nullcontext()
    from metalearn_benchmarks.runs.backends.ray.cluster import RayCluster

    return RayCluster(address)
