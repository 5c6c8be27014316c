"""The jobs that were submitted to a Ray cluster: their messages and their outcomes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.runs.job import CellOutcome, Job, StopFlag, outcome_of_cell
from metalearn_benchmarks.runs.progress import Progress


@attrs.define
class RunningJobs:
    """The jobs of a command that are on the cluster.

    Args:
        ray: The module ray.
        display: Shows the progress.
        stop: Whether to stop.
        mailbox: The handle of the mailbox.
        jobs: Number and job of each task that has not ended.
        started: Numbers of the jobs that a worker has started.
        problem: A problem with a node's set-up, which ends all jobs.
    """

    ray: Any
    display: Progress
    stop: StopFlag
    mailbox: Any
    jobs: dict[Any, tuple[int, Job]] = attrs.field(factory=dict)
    started: set[int] = attrs.field(factory=set)
    problem: str | None = None

    def submit(self, job: Job, number: int, environment: Any, demands: Mapping[str, Any]) -> None:
        """Submit a job.

        Args:
            job: The job.
            number: Its number.
            environment: What the worker must find on its node, see `worker.WorkerEnvironment`.
            demands: The resources it needs, as options of a Ray task.
        """
        from metalearn_benchmarks.runs.backends.ray.worker import work

        task = self.ray.remote(**demands)(work)
        self.jobs[task.remote(job, number, environment, self.mailbox)] = number, job

    def outcomes(self, directory: Path) -> Iterator[tuple[Job, list[CellOutcome]]]:
        """Yield each job with the outcomes of its cells, as they end."""
        cancelled = False
        while self.jobs:
            done, _ = self.ray.wait(list(self.jobs), timeout=0.1)
            self.forward_messages()
            if self.stopping and not cancelled:
                cancelled = True
                for task, (number, _) in self.jobs.items():
                    if number not in self.started:
                        self.ray.cancel(task)
            for task in done:
                _, job = self.jobs.pop(task)
                yield job, self.outcomes_of(task, job, directory)

    @property
    def stopping(self) -> bool:
        """Whether no further job should start."""
        return self.stop.is_set() or self.problem is not None

    def forward_messages(self) -> None:
        """Show the workers' messages, and tell the workers whether to stop."""
        started, messages = self.ray.get(self.mailbox.take.remote(self.stopping))
        self.started.update(started)
        for label, message in map(pickle.loads, messages):
            if isinstance(message, str):
                self.display.failed(f"{label}: {message}")
            else:
                self.display.event(label, message)

    def outcomes_of(self, task: Any, job: Job, directory: Path) -> list[CellOutcome]:
        """Return the outcomes of a task that has ended. A problem with a node's set-up ends all jobs."""
        errors, trace = self.ray.exceptions, ""
        try:
            answer: list[CellOutcome] | str = self.ray.get(task)
            if not isinstance(answer, str):
                return answer
            self.problem = answer
            return [CellOutcome(cell.label) for cell in job]
        except errors.TaskCancelledError:
            return [CellOutcome(cell.label) for cell in job]
        except errors.RayTaskError as error:
            error_text, trace = f"its worker failed: {str(error).strip().splitlines()[-1]}", str(error)
        except errors.RayError as error:
            error_text = (
                f"its worker died {RETRIES + 1} times ({type(error).__name__}); the same command goes on"
                " from the checkpoint"
            )
        return [outcome_of_cell(cell, directory, error_text, trace) for cell in job]


RETRIES = 10
"""How often a job is started again after its worker or its node died."""
