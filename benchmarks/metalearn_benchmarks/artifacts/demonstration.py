"""A trained rule at work: it adapts to tasks that it has not seen."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_benchmarks.artifacts.loading import load_rule
from metalearn_benchmarks.artifacts.zoo import shipped_folder
from metalearn_core import Settings, TaskStream, evaluate, task_families, trajectory

GRID = 73
"""Points at which predictions are shown."""


@attrs.frozen(eq=False)
class Demonstration:
    """What a trained rule did.

    Args:
        name: Its name in the zoo.
        title: The title of its method.
        errors: The mean squared error on the query set of each task, after each step: `[tasks, T + 1]`.
        support: Inputs and targets of the first task's support set, `[k]` each.
        truth: Inputs and targets of its query set, in the order of the inputs, `[n]` each.
        grid: Inputs at which the predictions are, `[GRID]`.
        predictions: What is predicted for the first task after each step: `[T + 1, GRID]`.
    """

    name: str
    title: str
    errors: Tensor
    support: tuple[Tensor, Tensor]
    truth: tuple[Tensor, Tensor]
    grid: Tensor
    predictions: Tensor

    def as_data(self) -> dict[str, Any]:
        """Return plain data: mean errors over the tasks, the errors of the first, and its curves."""
        return {
            "name": self.name,
            "title": self.title,
            "steps": self.errors.shape[1] - 1,
            "error_by_step": self.errors.mean(0).tolist(),
            "first_task": {
                "error_by_step": self.errors[0].tolist(),
                "support": [part.tolist() for part in self.support],
                "query": [part.tolist() for part in self.truth],
                "inputs": self.grid.tolist(),
                "predictions": self.predictions.tolist(),
            },
        }


@torch.no_grad()
def demonstrate(name: str, seed: int, tasks: int) -> Demonstration:
    """Adapt a trained rule that is shipped to test tasks of the family it was trained on.

    Args:
        name: Its name in the zoo; it is of functions of one number.
        seed: Which tasks are drawn. With 0 they are the test tasks of the experiment it comes from.
        tasks: How many.

    Raises:
        UsageError: There is no such rule.
    """
    artifact = load_rule(shipped_folder(name))
    learner, theta = artifact.start()
    family = task_families()[artifact.card["training"]["family"]["name"]](
        **artifact.card["training"]["family"]["options"]
    )
    settings = Settings(steps=artifact.steps, inner_clip=artifact.clip, task_seed=seed)
    errors = evaluate(artifact.rule, learner, theta, family, settings, split="test", tasks=tasks)
    first = TaskStream(family, "test", seed, learner.device, learner.dtype).take(0, 1)[0]
    points = torch.cat([first.support.inputs, first.query.inputs])
    grid = torch.linspace(float(points.min()), float(points.max()), GRID, dtype=learner.dtype)
    way = trajectory(
        artifact.rule, learner, theta, first.support, steps=artifact.steps, order="first", clip=artifact.clip
    )
    order = first.query.inputs[:, 0].argsort()
    return Demonstration(
        name=name,
        title=artifact.card["training"]["title"],
        errors=errors,
        support=(first.support.inputs[:, 0], first.support.targets[:, 0]),
        truth=(first.query.inputs[order, 0], first.query.targets[order, 0]),
        grid=grid,
        predictions=torch.stack([learner.predict(each, grid[:, None])[:, 0] for each, _ in way]),
    )
