"""Testing: query scores of a rule and an initialisation, without graphs."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import UsageError
from metalearn_core.inner_loop import per_task, trajectory
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Settings
from metalearn_core.task import Task, TaskFamily
from metalearn_core.training.processes import ALONE, Processes
from metalearn_core.training.task_stream import TaskStream
from metalearn_core.training.trained import Trained

Scored = Callable[[UpdateRule, Tensor, Task], Tensor]


def meta_test(
    trained: Trained, family: TaskFamily,
    *, tasks: int = 2_000, split: str = "test", steps: int | None = None,
) -> Tensor:  # fmt: skip
    """Scores of the best state on a split: `[tasks, T + 1]`, after each inner step, on the CPU.

    `steps`: T, by default the settings'. Further as in `evaluate`.
    """
    rule, theta = trained.at_best()
    settings = attrs.evolve(trained.settings, test_steps=steps) if steps is not None else trained.settings
    return evaluate(rule, trained.learner, theta, family, settings, split=split, tasks=tasks)


@torch.no_grad()
def evaluate(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, family: TaskFamily, settings: Settings,
    *, split: str, tasks: int, scored: Scored | None = None,
    watch: Callable[[int], None] | None = None, processes: Processes = ALONE,
) -> Tensor:  # fmt: skip
    """Query scores of θ⁰ and a rule, without graphs: `[tasks, T + 1]`, on the CPU.

    Of the settings it reads T at test, the inner clipping, the task seed and the evaluation batch.

    Args:
        scored: how a meta-batch is scored, as `scores` does it: `(rule, theta, task) -> [tasks, T + 1]`.
        watch: told before each batch how many tasks are done; what it raises ends the evaluation.
        processes: those that share the batches; all of them call this, and all get every score.

    Raises:
        UsageError: unless tasks >= 1.
    """
    if tasks < 1:
        raise UsageError(f"evaluate: tasks must be >= 1, got {tasks}")
    stream = TaskStream(family, split, settings.task_seed, learner.device, learner.dtype)

    def scores_from(start: int) -> Tensor:
        if watch is not None:
            watch(start)
        task = stream.take(start, min(settings.evaluation_batch, tasks - start))
        found = scored(rule, theta, task) if scored else scores(rule, learner, theta, task, settings)
        return found.cpu()

    return torch.cat(processes.each(scores_from, range(0, tasks, settings.evaluation_batch)))


@torch.no_grad()
def scores(rule: UpdateRule, learner: BaseLearner, theta: Tensor, task: Task, settings: Settings) -> Tensor:
    """Query scores of every task of a meta-batch after each inner step: `[tasks, T + 1]`."""
    path = trajectory(
        rule, learner, theta.detach(), task.support,
        steps=settings.evaluation_steps, clip=settings.inner_clip,
    )  # fmt: skip
    context = learner.context(task)
    return torch.stack([per_task(learner.score, now, task.query, *context) for now, _ in path], 1)
