"""The layers of convolutional base-learners. Activations are `[n, h, w, channels]`, the channels last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metalearn_benchmarks.learners.images.convolution import convolution
from metalearn_benchmarks.learners.images.moments import moments


class Convolution(nn.Conv2d):
    """A convolution of stride 1 before batch norm, drawn as torch draws it.

    A bias is a parameter but is not added, because batch norm would subtract it again with the mean. So its
    gradient is exactly 0 and not a rounding error, from which Adam or a learned rule would make an update.

    Args:
        channels: Channels of its input.
        outputs: Channels of its output.
        kernel: Height and width of the kernel.
        margin: The padding.
        bias: Whether there is a bias.
    """

    def __init__(self, channels: int, outputs: int, kernel: int, margin: int, *, bias: bool) -> None:
        super().__init__(channels, outputs, kernel, padding=margin, bias=bias)
        self.margin = margin

    def forward(self, x: Tensor) -> Tensor:
        return convolution(x, self.weight, self.margin)


class BatchNorm(nn.BatchNorm2d):
    """(x − mean) / √(variance + ε) · γ + β for each channel. Nothing is kept from one batch to the next.

    Args:
        channels: Channels of its input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def scaling(self, x: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
        """Compute the factor and the summand that normalise activations.

        Args:
            x: Activations `[n, h, w, c]`.
            count: How many examples, from the first on, give the statistics; None for all.

        Returns:
            The factor `[c]` and the summand `[c]`.
        """
        mean, variance = moments(x if count is None else x[:count])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - mean * scale

    def forward(self, x: Tensor, count: int | None = None) -> Tensor:
        scale, shift = self.scaling(x, count)
        return torch.addcmul(shift, x, scale)
