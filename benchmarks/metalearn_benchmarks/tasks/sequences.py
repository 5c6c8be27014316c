"""Sine regression in context: a sequence shows some points of a wave, and asks for the value at one more.

What a sequence shows tells its wave's amplitude and phase, as in Garg et al. (2022). Its frequency is that of
the task, so a base-learner has to adapt to the support sequences besides reading the one before it.
"""

from __future__ import annotations

import functools
import math

import attrs
import torch

from metalearn_benchmarks.tasks.sine import draw_uniform, require_count
from metalearn_core import Batch, Task, seeded_generator, unknown

FREQUENCY, AMPLITUDE, PHASE, INPUT = (0.5, 2.5), (0.5, 2.0), (0.0, 2 * math.pi), (-2.0, 2.0)


@attrs.frozen
class InContextSine:
    """Sequences of points of y = A sin(ωx + φ), without noise; ω is the task's, A and φ the sequence's.

    ω ~ U[0.5, 2.5], A ~ U[0.5, 2], φ ~ U[0, 2π] and x ~ U[−2, 2]. A sequence is `[context + 1, 3]`: its
    points (x, y, 0), then the question (x, 0, 1). Its target, `[1]`, is y there.

    Args:
        support: Support sequences of a task.
        query: Query sequences of a task.
        context: Points that a sequence shows.
        example_tasks: How many tasks make up the flat data of `examples`.

    Raises:
        UsageError: A number is no integer >= 1.
    """

    support: int = attrs.field(default=10, validator=require_count)
    query: int = attrs.field(default=20, validator=require_count)
    context: int = attrs.field(default=5, validator=require_count)
    example_tasks: int = attrs.field(default=2_000, validator=require_count)

    features = 3

    @property
    def length(self) -> int:
        """Positions of a sequence: its points, and the question."""
        return self.context + 1

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
            raise unknown("split of the family of sequences", split, self.splits)

        uniform = functools.partial(draw_uniform, generator)

        sequences = self.support + self.query
        frequency = uniform(FREQUENCY, count, 1, 1)
        amplitude, phase = (uniform(bounds, count, sequences, 1) for bounds in (AMPLITUDE, PHASE))
        x = uniform(INPUT, count, sequences, self.length)
        y = amplitude * torch.sin(frequency * x + phase)
        asked = torch.zeros_like(x)
        asked[..., -1] = 1
        inputs, targets = torch.stack([x, y * (1 - asked), asked], -1), y[..., -1:]
        k = self.support
        support, query = (Batch(inputs[:, part], targets[:, part]) for part in (slice(k), slice(k, None)))
        return Task(support, query, stacked=True)

    def examples(self, split: str) -> Batch:
        """The sequences of `example_tasks` tasks as flat data."""
        task = self.sample(split, self.example_tasks, seeded_generator("examples", split))
        parts = (task.support, task.query)
        inputs = torch.cat([part.inputs for part in parts], 1)
        targets = torch.cat([part.targets for part in parts], 1)
        return Batch(inputs.flatten(0, 1), targets.flatten(0, 1))
