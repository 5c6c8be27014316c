"""What image classifiers have in common: blocks and a head, cross entropy, accuracy, batch norm's mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metalearn_benchmarks.learners.images.heads import make_head
from metalearn_core import BaseLearner, UsageError, unknown

STATISTICS = ("batch", "support")
"""Where batch norm's statistics come from: the examples that are evaluated, at test the query set
(transductive; the paper's); or the task's support set, for its query set too."""


class Classifier(nn.Module):
    """Blocks, then a head: images `[n, channels, size, size]` to `[n, ways]`.

    Args:
        blocks: each called with activations, and how many examples the statistics of batch norm are of.
        average: whether features are means over places, or all of them.
        head: the last layer.
        image: (channels, size, size).
        uses_support: whether statistics are the support set's, also for a query set.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], head: nn.Module, image: tuple[int, ...],
        *, average: bool, uses_support: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), head
        self.image, self.average, self.uses_support = image, average, uses_support

    def forward(self, inputs: Tensor, support: Tensor | None = None) -> Tensor:
        """`support`: the support set's inputs, if the statistics are theirs and `inputs` are others.

        Raises UsageError for inputs that are no such images.
        """
        if inputs.shape[1:] != self.image or not inputs.is_floating_point():
            raise UsageError(
                f"an image classifier made for float images [n, {', '.join(map(str, self.image))}] got"
                f" {inputs.dtype} {list(inputs.shape)}; give its channels and size those of the family"
            )
        joined = inputs if support is None else torch.cat([support, inputs])
        count = None if support is None else len(support)
        x = joined.permute(0, 2, 3, 1).contiguous()
        for block in self.blocks:
            x = block(x, count)
        x = x if count is None else x[count:]
        # channels first, as everybody flattens them
        features = x.mean((1, 2)) if self.average else x.permute(0, 3, 1, 2).flatten(1)
        logits: Tensor = self.head(features)
        return logits


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """The share of examples whose class has the highest score: `[]`."""
    return (prediction.argmax(-1) == target).to(prediction.dtype).mean()


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of scores `[n, ways]` and classes `[n]`, int64: `[]`."""
    return nn.functional.cross_entropy(prediction, target)


def classifier(
    blocks: Sequence[nn.Module], features: int, image: tuple[int, ...],
    *, ways: int, batch_norm: str, head: str, scale: float, average: bool = False,
) -> BaseLearner:  # fmt: skip
    """The base-learner; UsageError for an unknown head or mode of batch norm, or a bad number."""
    if batch_norm not in STATISTICS:
        raise unknown("batch_norm", batch_norm, STATISTICS)
    made = make_head(head, features, ways, scale)
    network = Classifier(blocks, made, image, average=average, uses_support=batch_norm == "support")
    return BaseLearner(network, cross_entropy, accuracy)


def require_counts(given: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """UsageError unless every option is an integer, and no less than `least` says, or 1."""
    for option, value in given.items():
        low = least.get(option, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise UsageError(f"{option} must be an integer >= {low}, got {value!r}")


def pooled(size: int, count: int, less: int) -> int:
    """The side of an image after `count` blocks that take `less` from it and halve it.

    Raises UsageError where nothing is left, with the smallest size that fits.
    """
    sides = [size]
    for _ in range(count):
        sides.append(max(0, sides[-1] - less) // 2)
    if sides[-1] < 1:
        smallest = 1
        for _ in range(count):
            smallest = 2 * smallest + less
        raise UsageError(
            f"images of {size} x {size} are too small for {count} blocks that"
            f" {f'take {less} from a side and ' if less else ''}halve them ({', '.join(map(str, sides))});"
            f" give it a size of at least {smallest}"
            + (f", or padding = 1, which takes {2**count} and more" if less else "")
        )
    return sides[-1]
