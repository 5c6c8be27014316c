"""ResNet-12, as Lee et al. (2019, MetaOptNet) have it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from metalearn_benchmarks.learners.images.classifier import (
    make_classifier,
    require_integers,
    side_after_blocks,
)
from metalearn_benchmarks.learners.images.layers import BatchNorm, Convolution
from metalearn_benchmarks.learners.images.pooling import max_pool
from metalearn_core import BaseLearner, UsageError

SLOPE = 0.1
"""Of the leaky ReLU below 0."""


class HeNormalConvolution(Convolution):
    """A convolution without a bias, drawn from He et al.'s normal distribution, by its outputs."""

    def __init__(self, channels: int, outputs: int, kernel: int) -> None:
        super().__init__(channels, outputs, kernel, kernel // 2, bias=False)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="leaky_relu")


class Residual(nn.Module):
    """Three 3×3 convolutions beside a 1×1 one, each with batch norm; leaky ReLU; 2×2 max-pool.

    Args:
        channels: Channels of its input.
        width: Channels of its output.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            HeNormalConvolution(before, width, 3) for before in (channels, width, width)
        )
        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(3))
        self.shortcut, self.shortcut_norm = HeNormalConvolution(channels, width, 1), BatchNorm(width)

    def forward(self, x: Tensor, count: int | None) -> Tensor:
        beside = self.shortcut_norm(self.shortcut(x), count)
        for index, (convolve, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = norm(convolve(x), count)
            if index < 2:
                x = nn.functional.leaky_relu(x, SLOPE)
        # the leaky ReLU of the maximum is the maximum of leaky ReLUs
        one = x.new_ones(x.shape[-1])
        return nn.functional.leaky_relu(max_pool(x + beside, one, 0 * one), SLOPE)


def resnet_12(
    ways: int = 5, channels: int = 3, size: int = 84, widths: Sequence[int] = (64, 160, 320, 640),
    average_pool: bool = False, batch_norm: str = "batch", head: str = "linear", scale: float = 2.0,
) -> BaseLearner:  # fmt: skip
    """Build ResNet-12 under cross entropy, scored by accuracy; images and targets are as in `conv_4`.

    Lee et al. regularise it by DropBlock. DropBlock is left out: it draws random numbers, and a loss here is
    a function of θ and the examples alone.

    Args:
        ways, channels, size: As in `conv_4`.
        widths: Channels of the four blocks. Smaller ones suit a CPU.
        average_pool: Whether features are means over positions. Lee et al. flatten (16,000 features at size
            84).
        batch_norm, head, scale: As in `conv_4`.

    Raises:
        UsageError: An option makes no sense, or images are too small for four poolings.
    """
    require_integers({"ways": ways, "channels": channels, "size": size}, {"ways": 2})
    if isinstance(widths, str) or not isinstance(widths, Sequence) or len(widths) != 4:
        raise UsageError(f"widths must be four integers, got {widths!r}")
    require_integers({f"widths[{i}]": width for i, width in enumerate(widths)}, {})
    if not isinstance(average_pool, bool):
        raise UsageError(f"average_pool must be true or false, got {average_pool!r}")
    side = side_after_blocks(size, 4, 0)
    blocks = [Residual(before, width) for before, width in pairwise((channels, *widths))]
    features = widths[-1] * (1 if average_pool else side**2)
    return make_classifier(
        blocks, features, (channels, size, size), ways=ways, batch_norm=batch_norm, head=head, scale=scale,
        average=average_pool,
    )  # fmt: skip
