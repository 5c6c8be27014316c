"""Ordinary pretraining as meta-training with T = 0: a task is a minibatch of the flat data."""

from __future__ import annotations

import torch
from torch import Tensor

from metalearn_core import Batch, Task, TaskFamily, UsageError


class FlatFamily:
    """Tasks that are minibatches of a family's flat data, drawn with replacement.

    A family with large examples may have two more methods. `codes(split, numbers, generator)` returns codes
    `[..., fields]` that stand for those examples. `images(split, codes, dtype)` returns the inputs
    themselves. Then a minibatch is drawn as codes, and its inputs are looked up where they are used.
    Minibatches for validation that are held out of the training data are `codes("validation", ...)` and
    `images("train", ...)`: not augmented.

    Args:
        family: The family whose `examples(split)` are drawn from.
        minibatch: Examples in a minibatch.
        held_out: Where given, validation minibatches come from the training data too. They hold one example
            in `held_out`, and training minibatches hold the others.
    """

    def __init__(self, family: TaskFamily, minibatch: int, held_out: int | None = None) -> None:
        self.family, self.minibatch, self.held_out = family, minibatch, held_out
        self._examples: dict[str, Batch] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the family's splits."""
        return self.family.splits

    def examples(self, split: str) -> Batch:
        """The flat data of a split, asked for once.

        Raises:
            UsageError: The family has no flat data.
        """
        if split not in self._examples:
            try:
                self._examples[split] = self.family.examples(split)
            except NotImplementedError as error:
                raise UsageError(
                    f"{type(self.family).__name__} has no flat data to pretrain on ({error}); leave out the"
                    " methods that are pretrained"
                ) from error
        return self._examples[split]

    def _numbers(self, split: str) -> tuple[str, Tensor]:
        """Where the minibatches of a split come from: a split of the family, and its examples for them."""
        source = split if self.held_out is None or split == "test" else "train"
        numbers = torch.arange(len(self.examples(source)))
        if self.held_out is not None and split in ("train", "validation"):
            numbers = numbers[(numbers % self.held_out == self.held_out - 1) == (split == "validation")]
        return source, numbers

    def draw(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw `count` minibatches as a task stream keeps them: with codes as inputs where there are any."""
        source, numbers = self._numbers(split)
        flat, codes = self.examples(source), getattr(self.family, "codes", None)
        chosen = numbers[torch.randint(len(numbers), (count, self.minibatch), generator=generator)]
        inputs = flat.inputs[chosen] if codes is None else codes(split, chosen, generator)
        batch = Batch(inputs, flat.targets[chosen], stacked=True)
        return Task(batch, batch, stacked=True)

    def realise(self, split: str, task: Task, dtype: torch.dtype) -> Task:
        """Replace the codes of drawn minibatches by the inputs they stand for."""
        images = getattr(self.family, "images", None)
        if images is None:
            return task
        source, _ = self._numbers(split)
        batch = Batch(images(source, task.query.inputs, dtype), task.query.targets, stacked=True)
        return Task(batch, batch, stacked=True)  # once: support and query are the same

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw `count` minibatches with their inputs."""
        return self.realise(split, self.draw(split, count, generator), torch.get_default_dtype())
