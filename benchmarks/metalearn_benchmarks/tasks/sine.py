"""Few-shot sine regression (Finn et al., 2017), as Huisman et al. (2022) generate it."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from metalearn_core import Batch, Task, UsageError, seeded_generator, unknown

AMPLITUDE, PHASE, INPUT = (0.1, 5.0), (0.0, math.pi), (-5.0, 5.0)


def _count(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{attribute.name} must be an integer >= 1, got {value!r}")


@attrs.frozen
class SineFamily:
    """y = A sin(x + φ), A ~ U[0.1, 5], φ ~ U[0, π], x ~ U[−5, 5], without noise; all `[n, 1]`.

    Args:
        support, query: k, and the query points of a task (the paper: 50 in every split).
        example_tasks: how many tasks' points make up the flat data of `examples`.
    """

    support: int = attrs.field(default=5, validator=_count)
    query: int = attrs.field(default=50, validator=_count)
    example_tasks: int = attrs.field(default=10_000, validator=_count)

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "validation", "test")

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        if split not in self.splits:
            raise unknown("split of the sine family", split, self.splits)

        def uniform(bounds: tuple[float, float], *shape: int) -> Tensor:
            low, high = bounds
            return low + (high - low) * torch.rand(*shape, generator=generator)

        amplitude, phase = uniform(AMPLITUDE, count, 1, 1), uniform(PHASE, count, 1, 1)
        x = uniform(INPUT, count, self.support + self.query, 1)
        y = amplitude * torch.sin(x + phase)
        k = self.support
        return Task(Batch(x[:, :k], y[:, :k]), Batch(x[:, k:], y[:, k:]), stacked=True)

    def examples(self, split: str) -> Batch:
        task = self.sample(split, self.example_tasks, seeded_generator("examples", split))
        inputs = torch.cat([task.support.inputs, task.query.inputs], 1)
        targets = torch.cat([task.support.targets, task.query.targets], 1)
        return Batch(inputs.reshape(-1, 1), targets.reshape(-1, 1))
