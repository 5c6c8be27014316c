"""Testing: query scores of a rule and an initialisation, without graphs."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import require_callables, require_count, require_kinds
from metalearn_core.inner_loop import per_task, trajectory
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.safeguards.same_alone import check_first_batch
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
    """Score the best state of a training on a split, after each inner step.

    Args:
        trained: what `meta_train` returned; θ⁰ and φ of its best validation are tested.
        family: the tasks.
        tasks: the number of tasks, at least 1.
        split: the split that they come from.
        steps: T; None takes the one of the settings.

    Returns:
        Query scores `[tasks, T + 1]`, on the CPU; column t is the score after t inner steps.

    Raises:
        UsageError: for fewer than 1 task, and for a split that the family lacks.

    Example:
        >>> import torch
        >>> from metalearn_core import Settings, make_rule, meta_test, meta_train
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner, settings = tiny_learner(), Settings(tasks=2, steps=1, validation_tasks=2)
        >>> rule = make_rule("gradient-descent", learner.layout)
        >>> generator = torch.Generator().manual_seed(0)
        >>> trained = meta_train(rule, learner, TinySines(), settings, generator=generator)
        >>> meta_test(trained, TinySines(), tasks=3, steps=4).shape
        torch.Size([3, 5])
    """
    require_kinds("meta_test", trained=(trained, Trained))
    require_count("meta_test", "tasks", tasks, 1)
    rule, theta = trained.at_best()
    settings = attrs.evolve(trained.settings, test_steps=steps) if steps is not None else trained.settings
    return evaluate(rule, trained.learner, theta, family, settings, split=split, tasks=tasks)


@torch.no_grad()
def evaluate(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, family: TaskFamily, settings: Settings,
    *, split: str, tasks: int, scored: Scored | None = None,
    watch: Callable[[int], None] | None = None, processes: Processes = ALONE,
) -> Tensor:  # fmt: skip
    """Score a rule and an initialisation on the query sets of a split, without keeping graphs.

    Of the settings it reads T at test, the inner clipping, the task seed and the evaluation batch.

    Args:
        rule: the update rule, with its φ.
        learner: the base-learner.
        theta: θ⁰, `[n]`.
        family: the tasks.
        settings: as in `meta_train`.
        split: the split that the tasks come from.
        tasks: the number of tasks, at least 1.
        scored: `(rule, theta, task) -> [tasks, T + 1]` scores a meta-batch; None runs the eager inner loop.
        watch: called before each batch with the number of tasks that are done; an exception that it raises
            ends the evaluation.
        processes: those that share the batches; all of them call this function, and all get every score.

    Returns:
        Query scores `[tasks, T + 1]`, on the CPU; column t is the score after t inner steps.

    Raises:
        UsageError: for fewer than 1 task, and for a split that the family lacks.
        LostProcessError: where another process has ended or failed.

    Example:
        >>> import torch
        >>> from metalearn_core import Settings, evaluate, make_rule
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner = tiny_learner()
        >>> rule = make_rule("gradient-descent", learner.layout, inner_lr=0.01)
        >>> theta = learner.initial(torch.Generator().manual_seed(0))
        >>> scores = evaluate(rule, learner, theta, TinySines(), Settings(steps=5), split="test", tasks=20)
        >>> scores.shape
        torch.Size([20, 6])
        >>> bool(scores[:, 5].mean() < scores[:, 0].mean())  # five steps of adaptation lower the error
        True
    """
    require_kinds("evaluate", rule=(rule, UpdateRule), learner=(learner, BaseLearner), theta=(theta, Tensor))
    require_kinds("evaluate", settings=(settings, Settings), processes=(processes, Processes))
    require_count("evaluate", "tasks", tasks, 1)
    require_callables("evaluate", optional=True, scored=scored, watch=watch)
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
    check_first_batch(learner, theta, task.query, *context, what="score", derivatives=0)
    return torch.stack([per_task(learner.score, now, task.query, *context) for now, _ in path], 1)
