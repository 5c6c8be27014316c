"""A family of tasks for tests: learned in seconds, of the same shape as the paper's sine regression."""

from __future__ import annotations

import math

import attrs
import torch
from torch import nn

from metalearn_core.errors import unknown
from metalearn_core.learner import BaseLearner
from metalearn_core.task import Batch, Task


@attrs.frozen
class TinySines:
    """a·sin(x + p), a in [0.1, 5], p in [0, π], x in [−5, 5], as Finn et al. (2017) draw them.

    Args:
        support, query: points of each.
    """

    support: int = 5
    query: int = 10
    splits: tuple[str, ...] = ("train", "validation", "test")

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """`count` tasks; every split draws from the same distribution."""
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        points = self.support + self.query
        amplitude = 0.1 + 4.9 * torch.rand(count, 1, 1, generator=generator)
        phase = math.pi * torch.rand(count, 1, 1, generator=generator)
        x = 10 * torch.rand(count, points, 1, generator=generator) - 5
        y = amplitude * torch.sin(x + phase)
        sizes = [self.support, self.query]
        (xs, xq), (ys, yq) = torch.split(x, sizes, 1), torch.split(y, sizes, 1)
        return Task(Batch(xs, ys), Batch(xq, yq), stacked=True)

    def examples(self, split: str) -> Batch:
        """There is no data behind these tasks."""
        raise NotImplementedError("TinySines: its tasks are drawn, there are no flat examples behind them")


def tiny_learner() -> BaseLearner:
    """A perceptron 1-16-1 with the squared error."""
    return BaseLearner(nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)), nn.functional.mse_loss)
