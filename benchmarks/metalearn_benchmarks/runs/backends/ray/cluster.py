"""A Ray cluster that runs the jobs of an experiment as tasks.

Tasks are placed by their needs, and run again where a node dies. A task does what a local worker does
(`runs.job.run_job`), in the same folders, so one that is run again continues from its checkpoint. Ray's own
messages and its usage reports are switched off.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.runs import seed_groups
from metalearn_benchmarks.runs.backends.ray.address import current_address, has_token, is_only_on_loopback
from metalearn_benchmarks.runs.backends.ray.running_jobs import RETRIES, RunningJobs
from metalearn_benchmarks.runs.job import CellOutcome, Job, StopFlag
from metalearn_benchmarks.runs.progress import Progress
from metalearn_core import UsageError

BASE_BYTES = 1 << 30
"""Memory of a worker before it trains anything: Python, torch, a compiler."""
LOCAL_CLUSTER_OPTIONS: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 256 << 20}
"""Options of a cluster that the command starts by itself."""
NO_REPORTS = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Environment variables that switch off Ray's usage reports."""
AUTHENTICATION = "RAY_AUTH_MODE"
"""A cluster asks for the user's token where there is one; a client has to state that it has it."""
ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""If this is 0, Ray accepts 127.0.0.1 as the address of a node, as it does on those systems by itself."""


class RayCluster:
    """A context in which jobs run on a Ray cluster.

    Args:
        address: `HOST:PORT` of a running cluster, `auto` for the one that this machine is in, or `local` for
            one that is started here, on 127.0.0.1, and ends with the command.

    Raises:
        UsageError: The address is invalid; or, on entering, ray is not installed or does not answer.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        if not re.fullmatch(r"auto|local|[^\s/:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", address):
            raise UsageError(f"--ray {address}: expected HOST:PORT, auto or local")

    def __enter__(self) -> Self:
        target = current_address() if self.address == "auto" else self.address
        os.environ.update(NO_REPORTS)
        if target != "local" and has_token():
            os.environ.setdefault(AUTHENTICATION, "token")
        if target == "local" or (":" in target and is_only_on_loopback(target, self.address)):
            os.environ[ON_LOOPBACK] = "0"  # read when ray is imported
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                f"--ray needs the package ray ({error}): in the checkout, pip install -e './benchmarks[ray]'"
            ) from error
        own = LOCAL_CLUSTER_OPTIONS if target == "local" else {}
        try:
            ray.init(target, log_to_driver=False, logging_level=logging.CRITICAL, **own)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise self._no_answer(" ".join(str(error).split())[:300]) from error
        self.ray = ray
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ray.shutdown()

    def _no_answer(self, why: str) -> UsageError:
        return UsageError(f"--ray {self.address}: no Ray cluster answers ({why}); start one with `ray start`")

    def needs(self, cell: Cell) -> dict[str, float]:
        """Return the CPUs and GPUs that a job needs.

        Raises:
            UsageError: No node has them, or the cell asks for a GPU by its number.
        """
        if cell.device.startswith("cuda:"):
            raise UsageError(
                f"--device {cell.device}: with --ray a job is given its GPU by Ray; say --device cuda"
            )
        wanted = {"CPU": float(cell.threads), "GPU": float(cell.device == "cuda")}
        if not self._fitting(wanted):
            largest = {kind: max((n.get(kind, 0.0) for n in self._nodes()), default=0.0) for kind in wanted}
            missing, available = (", ".join(f"{v:g} {k}" for k, v in x.items()) for x in (wanted, largest))
            raise UsageError(
                f"--ray {self.address}: no node has what a run needs, {missing}; at most {available}"
            )
        return wanted

    def _nodes(self) -> list[dict[str, float]]:
        """Return the resources of each node."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _fitting(self, wanted: Mapping[str, float]) -> list[dict[str, float]]:
        """Return the nodes that have what is wanted."""
        return [n for n in self._nodes() if all(n.get(k, 0.0) >= v for k, v in wanted.items())]

    def memory_for(self, cell: Cell) -> Callable[[Any], int]:
        """Return a function that gives the free bytes for one program on the cluster.

        For a GPU, a worker measures them. For CPUs, it is the memory of a node divided by the programs that
        it runs at a time, for the node where this is least.

        Raises:
            UsageError: When the function is called, and a worker cannot use its GPU.
        """
        needs = self.needs(cell)

        def of_gpu(_: Any) -> int:
            probe = self.ray.remote(num_cpus=needs["CPU"], num_gpus=1)(_free_memory_of_gpu)
            try:
                return int(self.ray.get(probe.remote()))
            except self.ray.exceptions.RayError as error:
                why = str(error).strip().splitlines()[-1]
                raise UsageError(f"--ray {self.address}: a worker cannot use its GPU: {why}") from error

        def of_nodes(_: Any) -> int:
            nodes = self._fitting(needs)
            return int(min(n.get("memory", 0.0) // max(n["CPU"] // needs["CPU"], 1.0) for n in nodes))

        return of_gpu if needs["GPU"] else of_nodes

    def run(
        self, jobs: Sequence[Job], directory: Path, display: Progress, stop: StopFlag,
        bytes_per_seed: Mapping[tuple[str, str], int],
    ) -> Iterator[tuple[Job, list[CellOutcome]]]:  # fmt: skip
        """Run jobs, and yield each with the outcomes of its cells, as they end.

        Once `stop` is set, jobs that have not started never do.

        Args:
            jobs: The jobs.
            directory: DIR, which all nodes share.
            display: Shows the progress.
            stop: Whether to stop.
            bytes_per_seed: Roughly what a seed of each row needs.

        Raises:
            UsageError: A node does not see `directory`, or has other versions.
        """
        from metalearn_benchmarks.runs.backends.ray.worker import WorkerEnvironment, environment, versions

        directory = Path(os.path.abspath(directory))
        with _marker_file(directory) as marker:
            worker_environment = WorkerEnvironment(directory, marker, Path.cwd(), versions(), environment())
            running = RunningJobs(
                self.ray, display, stop, self.ray.remote(**self._mailbox())(_mailbox()).remote()
            )
            for number, job in enumerate(jobs):
                running.submit(
                    job, number, worker_environment, self._demands(job, bytes_per_seed[job.cells[0].row])
                )
            try:
                yield from running.outcomes(directory)
            except self.ray.exceptions.RayActorError as error:
                why = " ".join(str(error).split())[:300]
                raise UsageError(
                    f"--ray {self.address}: the cluster does not run what listens to its workers ({why}); if"
                    f" it was started with another {AUTHENTICATION} than is set here, set the same"
                ) from error
        if running.problem:
            raise UsageError(f"--ray {self.address}: {running.problem}")

    def _mailbox(self) -> dict[str, Any]:
        """Return the options of the mailbox, which runs on the node that the command is connected to."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        pinned = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=False)
        return {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": pinned}

    def _demands(self, job: Job, bytes_per_seed: int) -> dict[str, Any]:
        needs = self.needs(job.cells[0])
        memory = BASE_BYTES + (0 if needs["GPU"] else len(job.cells) * bytes_per_seed)
        # the estimate is rough, on the safe side: what fits nowhere has a node to itself
        most = int(max(node.get("memory", 0.0) for node in self._fitting(needs)))
        return {
            "num_cpus": needs["CPU"], "num_gpus": needs["GPU"], "memory": min(memory, most),
            "max_retries": RETRIES, "retry_exceptions": False,
        }  # fmt: skip


@contextmanager
def _marker_file(directory: Path) -> Iterator[Path]:
    """Make a new file, by which workers see that their DIR is this one."""
    handle, name = tempfile.mkstemp(prefix=".shared-", dir=directory)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _mailbox() -> type:
    from metalearn_benchmarks.runs.backends.ray.mailbox import Mailbox

    return Mailbox


def _free_memory_of_gpu() -> int:
    import torch

    return seed_groups.free_memory(torch.device("cuda"))
