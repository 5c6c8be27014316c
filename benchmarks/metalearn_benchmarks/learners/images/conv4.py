"""Conv-4: four blocks of convolution, batch norm, ReLU and pooling (Vinyals et al., 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from metalearn_benchmarks.learners.images.classifier import (
    make_classifier,
    require_integers,
    side_after_blocks,
)
from metalearn_benchmarks.learners.images.layers import BatchNorm, Convolution
from metalearn_benchmarks.learners.images.pooling import max_pool
from metalearn_core import BaseLearner, UsageError


class Block(nn.Module):
    """3×3 convolution, batch norm, ReLU, 2×2 max-pool.

    Args:
        channels: Channels of its input.
        width: Channels of its output.
        margin: The padding of the convolution.
    """

    def __init__(self, channels: int, width: int, margin: int) -> None:
        super().__init__()
        self.convolution = Convolution(channels, width, 3, margin, bias=True)
        self.norm = BatchNorm(width)

    def forward(self, x: Tensor, count: int | None) -> Tensor:
        x = self.convolution(x)
        # ReLU of the maximum is the maximum of ReLUs, and takes a quarter of the work
        return max_pool(x, *self.norm.scaling(x, count)).relu()


def conv_4(
    ways: int = 5, channels: int = 3, size: int = 84, width: int = 64, padding: int = 1,
    batch_norm: str = "batch", head: str = "linear", scale: float = 2.0,
) -> BaseLearner:  # fmt: skip
    """Build Conv-4 under cross entropy, scored by accuracy.

    Inputs are float images in [0, 1], `[n, channels, size, size]`; targets are classes, int64 `[n]`. Weights
    of convolutions are drawn as torch draws them; γ = 1, β = 0, and the bias of the head is 0, as in the
    authors' program.

    Args:
        ways: Classes.
        channels: Channels of an image.
        size: Height and width of an image, in pixels.
        width: Channels of every block.
        padding: 1, the usual form (1,600 features at size 84); or 0, that of the authors' program (576
            features at 84, 115,973 parameters for 5 classes).
        batch_norm: "batch" takes statistics from the examples that are evaluated, at test the query set
            (transductive; the paper's). "support" takes those of the task's support set, for its query set
            too.
        head: "linear", or "cosine" for Baseline++.
        scale: The factor of a cosine head.

    Raises:
        UsageError: An option makes no sense, or images are too small for four poolings.
    """
    given = {"ways": ways, "channels": channels, "size": size, "width": width}
    require_integers(given, {"ways": 2})
    if padding not in (0, 1) or isinstance(padding, bool):
        raise UsageError(f"padding must be 0 or 1, got {padding!r}")
    side = side_after_blocks(size, 4, 2 - 2 * padding)
    blocks = [Block(before, width, padding) for before in (channels, width, width, width)]
    features, image = width * side**2, (channels, size, size)
    return make_classifier(
        blocks, features, image, ways=ways, batch_norm=batch_norm, head=head, scale=scale
    )  # fmt: skip
