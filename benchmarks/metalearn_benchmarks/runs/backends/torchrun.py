"""Runs that several processes share, as `torchrun -m metalearn_benchmarks run` starts them.

Process 0 is the command. It alone reads DIR, decides, writes and reports. The other processes follow it from
run to run, with their shares of the training and of the tests.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context

import torch

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.host.exit_codes import EXIT_INTERRUPTED
from metalearn_benchmarks.runs.interruption import InterruptFlag
from metalearn_benchmarks.runs.job import GroupReporter
from metalearn_benchmarks.runs.training import follow_cells
from metalearn_core import FailedElsewhereError, LostProcessError, Processes, UsageError
from metalearn_core.errors import CheckpointError

EXIT_LOST, EXIT_USAGE = 1, 2


def require_shares(cells: Sequence[Cell]) -> None:
    """Raise UsageError for a meta-batch with fewer tasks than there are processes."""
    for cell in {cell.row: cell for cell in cells}.values():
        size = cell.method.settings.get("meta_batch", 1)
        if cell.method.start == "meta" and size < cell.processes:
            raise UsageError(
                f"method {cell.name!r} has a meta-batch of {size}, which {cell.processes} processes cannot"
                " share; start fewer, or set meta_batch in an experiment of your own"
            )


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Connect to the other processes that torchrun started. Processes other than the first end in here.

    Args:
        device: Name of the device type; each process has a GPU of its own.

    Yields:
        The processes, in process 0.

    Raises:
        UsageError: The processes cannot connect.
    """
    own = _device_of_this_process(device)
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
        for backend in ("GLOO", "NCCL") if loopback else ():  # all of them are here: nothing goes out
            os.environ.setdefault(f"{backend}_SOCKET_IFNAME", str(loopback))
    try:
        processes = Processes.joined(own)
    except LostProcessError as error:
        raise UsageError(f"torchrun: the processes do not find each other: {error.__cause__}") from error
    if processes.rank > 0:
        code = _follow(processes)
        sys.stderr.flush()
        # gloo's threads may abort a process that takes itself apart, and nothing here is left to be written
        os._exit(code)
    yield processes
    if not processes.stop:
        with suppress(LostProcessError):  # all is recorded
            processes.of_first(lambda: None)
        processes.leave()
    # else the others may wait for something else: a closed connection tells them


def _device_of_this_process(device: str) -> torch.device:
    """Return this process's own GPU, or the CPU. A process without a GPU reports that and ends."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.startswith("cuda:"):
        raise UsageError(
            f"--device {device}: torchrun gives each process a GPU of its own; say --device cuda"
        )
    if device == "cuda" and local >= torch.cuda.device_count():
        _write_problem(
            f"process {os.environ['RANK']} has no GPU: it is number {local} on its machine, which has"
            f" {torch.cuda.device_count()}; start fewer processes"
        )
        sys.exit(EXIT_USAGE)
    if device == "cuda":
        torch.cuda.set_device(local)
    return torch.device(device)


def _follow(processes: Processes) -> int:
    """Take a share of every run that process 0 starts, until there are no more; return an exit code."""
    stop, me = (
        InterruptFlag(get_context("spawn"), processes),
        f"process {processes.rank} of {processes.count}",
    )
    try:
        with stop.on_interrupt():
            while (asked := processes.of_first(lambda: None)) is not None:
                cells, seeds = asked
                try:
                    follow_cells(
                        cells, seeds, [GroupReporter(me, lambda label, event: None, stop)], processes
                    )
                except FailedElsewhereError:
                    continue  # process 0 says why, and whether it begins the run again
        processes.leave()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except LostProcessError:  # process 0, if it is still there, says so
        return EXIT_LOST
    except CheckpointError as error:
        _write_problem(f"{me}: {error.reason}; every machine must have the same versions installed")
        return EXIT_USAGE
    except UsageError as error:
        _write_problem(f"{me}: {error}")
        return EXIT_USAGE
    return 0


def _write_problem(problem: str) -> None:
    sys.stderr.write(f"metalearn: {' '.join(problem.split())}\n")
