"""Few-shot sine regression (Finn et al., 2017), as Huisman et al. (2022) generate it."""

from __future__ import annotations

import functools
import math

import attrs
import torch
from torch import Tensor

from metalearn_core import Batch, Task, UsageError, seeded_generator, unknown

AMPLITUDE, PHASE, INPUT = (0.1, 5.0), (0.0, math.pi), (-5.0, 5.0)


def require_count(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    """Raise UsageError unless the value is an integer >= 1; a validator for attrs."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{attribute.name} must be an integer >= 1, got {value!r}")


def draw_uniform(generator: torch.Generator, bounds: tuple[float, float], *shape: int) -> Tensor:
    """Draw numbers between two bounds, of a shape."""
    low, high = bounds
    return low + (high - low) * torch.rand(*shape, generator=generator)


@attrs.frozen
class SineFamily:
    """Sine regression tasks y = A sin(x + φ), without noise.

    A ~ U[0.1, 5], φ ~ U[0, π] and x ~ U[−5, 5]; inputs and targets are `[n, 1]`.

    Args:
        support: Support points of a task, k.
        query: Query points of a task. The paper has 50 in every split.
        example_tasks: How many tasks make up the flat data of `examples`.

    Raises:
        UsageError: A number is no integer >= 1.
    """

    support: int = attrs.field(default=5, validator=require_count)
    query: int = attrs.field(default=50, validator=require_count)
    example_tasks: int = attrs.field(default=10_000, validator=require_count)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits. All have the same distribution of tasks."""
        return ("train", "validation", "test")

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw `count` tasks of a split.

        Raises:
            UsageError: There is no such split.
        """
        if split not in self.splits:
            raise unknown("split of the sine family", split, self.splits)

        uniform = functools.partial(draw_uniform, generator)

        amplitude, phase = uniform(AMPLITUDE, count, 1, 1), uniform(PHASE, count, 1, 1)
        x = uniform(INPUT, count, self.support + self.query, 1)
        y = amplitude * torch.sin(x + phase)
        k = self.support
        return Task(Batch(x[:, :k], y[:, :k]), Batch(x[:, k:], y[:, k:]), stacked=True)

    def examples(self, split: str) -> Batch:
        """The points of `example_tasks` tasks as flat data, `[example_tasks * (support + query), 1]`."""
        task = self.sample(split, self.example_tasks, seeded_generator("examples", split))
        inputs = torch.cat([task.support.inputs, task.query.inputs], 1)
        targets = torch.cat([task.support.targets, task.query.targets], 1)
        return Batch(inputs.reshape(-1, 1), targets.reshape(-1, 1))
