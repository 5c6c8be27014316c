"""Jobs that are on a Ray cluster, and what is heard of them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.runs.job import CellOutcome, Job, Stop, finished_of
from metalearn_benchmarks.runs.progress import Progress


@attrs.define
class JobsUnderWay:
    """The jobs that are on the cluster, and what is heard of them."""

    ray: Any
    display: Progress
    stop: Stop
    mailbox: Any
    jobs: dict[Any, tuple[int, Job]] = attrs.field(factory=dict)
    begun: set[int] = attrs.field(factory=set)
    problem: str | None = None

    def submit(self, job: Job, number: int, place: Any, demands: Mapping[str, Any]) -> None:
        from metalearn_benchmarks.runs.backends.ray.worker import work

        task = self.ray.remote(**demands)(work)
        self.jobs[task.remote(job, number, place, self.mailbox)] = number, job

    def ends(self, directory: Path) -> Iterator[tuple[Job, list[CellOutcome]]]:
        cancelled = False
        while self.jobs:
            done, _ = self.ray.wait(list(self.jobs), timeout=0.1)
            self.listen()
            if self.ending and not cancelled:
                cancelled = True
                for task, (number, _) in self.jobs.items():
                    if number not in self.begun:
                        self.ray.cancel(task)
            for task in done:
                _, job = self.jobs.pop(task)
                yield job, self.outcome(task, job, directory)

    @property
    def ending(self) -> bool:
        return self.stop.is_set() or self.problem is not None

    def listen(self) -> None:
        """Pass on what workers tell, and tell them whether to stop."""
        begun, told = self.ray.get(self.mailbox.take.remote(self.ending))
        self.begun.update(begun)
        for label, what in map(pickle.loads, told):
            if isinstance(what, str):
                self.display.failed(f"{label}: {what}")
            else:
                self.display.event(label, what)

    def outcome(self, task: Any, job: Job, directory: Path) -> list[CellOutcome]:
        """What a task came to. A mistake in a node's set-up ends all, without a result or an error."""
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
            told, trace = f"its worker failed: {str(error).strip().splitlines()[-1]}", str(error)
        except errors.RayError as error:
            told = (
                f"its worker died {RETRIES + 1} times ({type(error).__name__}); the same command goes on"
                " from the checkpoint"
            )
        return [finished_of(cell, directory, told, trace) for cell in job]


RETRIES = 10
"""Times that a job is begun again after its worker or its node died."""
