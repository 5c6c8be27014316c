"""Noise of miniImageNet's size: a task family for measurements, which need no real images."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from metalearn_core import Batch, Task

CHANNELS, SIZE = 3, 84
CLASSES = 20
EACH = 40
"""Images of each class. A task takes `shots + queries` of them."""


@attrs.frozen(eq=False)
class NoiseImages:
    """Few-shot tasks on images whose pixels are drawn from U[0, 1].

    All splits have the same images, and tasks are drawn as numbers of images, as those of miniImageNet are.

    Args:
        ways: Classes of a task.
        shots: Support images of each class.
        queries: Query images of each class.
        classes: How many classes there are.
        size: Pixels of a side.
    """

    ways: int
    shots: int
    queries: int
    classes: int = CLASSES
    size: int = SIZE
    pool: Tensor = attrs.field(init=False, repr=False)

    channels = CHANNELS
    splits = ("train", "validation", "test")

    def __attrs_post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (self.classes * EACH, CHANNELS, self.size, self.size)
        pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        object.__setattr__(self, "pool", pixels)

    def draw(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw tasks that hold numbers of images as inputs."""
        each = self.shots + self.queries
        chosen = torch.rand(count, self.classes, generator=generator).argsort(1)[:, : self.ways]
        images = torch.rand(count, self.ways, EACH, generator=generator).argsort(2)[:, :, :each]
        numbers = chosen[:, :, None] * EACH + images
        labels = torch.arange(self.ways)[None, :, None].expand(count, -1, each)
        support, query = (
            Batch(numbers[..., part].flatten(1), labels[..., part].flatten(1), stacked=True)
            for part in (slice(0, self.shots), slice(self.shots, None))
        )
        return Task(support, query, stacked=True)

    def realise(self, split: str, task: Task, dtype: torch.dtype) -> Task:
        """Replace the numbers of images by the images."""
        support, query = (
            Batch(self.pool[batch.inputs].to(dtype) / 255, batch.targets, stacked=True)
            for batch in (task.support, task.query)
        )
        return Task(support, query, stacked=True)

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw tasks with their images."""
        return self.realise(split, self.draw(split, count, generator), torch.get_default_dtype())

    def examples(self, split: str) -> Batch:
        """Refuse: nothing is pretrained on noise."""
        raise NotImplementedError("noise has no flat data")
