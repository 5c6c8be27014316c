"""What image classifiers share: blocks and a head, cross entropy, accuracy, and the mode of batch norm."""

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
    """Blocks, then a head: images `[n, channels, size, size]` to scores `[n, ways]`.

    Args:
        blocks: Each is called with activations, and with how many examples batch norm takes its statistics
            from.
        head: The last layer.
        image: The shape of an image, (channels, size, size).
        average: Whether features are means over positions, in place of all activations.
        uses_support: Whether statistics come from the support set, for a query set too.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], head: nn.Module, image: tuple[int, ...],
        *, average: bool, uses_support: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), head
        self.image, self.average, self.uses_support = image, average, uses_support

    def forward(self, inputs: Tensor, support: Tensor | None = None) -> Tensor:
        """Compute the scores of images.

        Args:
            inputs: Float images `[n, channels, size, size]`.
            support: The inputs of the support set, where the statistics are theirs and `inputs` are others.

        Raises:
            UsageError: The inputs are no such images.
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
    """Return the share of examples whose class has the highest score: `[]`."""
    return (prediction.argmax(-1) == target).to(prediction.dtype).mean()


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross entropy of scores `[n, ways]` and classes `[n]`, int64: `[]`."""
    return nn.functional.cross_entropy(prediction, target)


def make_classifier(
    blocks: Sequence[nn.Module], features: int, image: tuple[int, ...],
    *, ways: int, batch_norm: str, head: str, scale: float, average: bool = False,
) -> BaseLearner:  # fmt: skip
    """Build the base-learner of a classifier.

    Args:
        blocks: The blocks, as for `Classifier`.
        features: The number of features that the blocks compute.
        image: The shape of an image, (channels, size, size).
        ways: Classes.
        batch_norm: One of `STATISTICS`.
        head: One of `HEADS`.
        scale: The factor of a cosine head.
        average: Whether features are means over positions.

    Raises:
        UsageError: The head or the mode of batch norm is unknown, or a number is out of range.
    """
    if batch_norm not in STATISTICS:
        raise unknown("batch_norm", batch_norm, STATISTICS)
    made = make_head(head, features, ways, scale)
    network = Classifier(blocks, made, image, average=average, uses_support=batch_norm == "support")
    return BaseLearner(network, cross_entropy, accuracy)


def require_integers(given: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """Require that every option is an integer, and at least what `least` says, or 1.

    Raises:
        UsageError: One is not.
    """
    for option, value in given.items():
        low = least.get(option, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise UsageError(f"{option} must be an integer >= {low}, got {value!r}")


def side_after_blocks(size: int, count: int, less: int) -> int:
    """Compute the side of an image after blocks that each shrink it and then halve it.

    Args:
        size: The side before, in pixels.
        count: The number of blocks.
        less: What a block takes from a side before it halves it.

    Raises:
        UsageError: Nothing is left; the message has the smallest size that fits.
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
