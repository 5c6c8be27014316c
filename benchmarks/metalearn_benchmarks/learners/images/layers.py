"""The layers of convolutional base-learners. Activations are `[n, h, w, channels]`, the channels last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metalearn_benchmarks.learners.images.convolution import convolution
from metalearn_benchmarks.learners.images.moments import moments


class Convolution(nn.Conv2d):
    """A convolution of stride 1, drawn as torch draws it, before batch norm.

    A bias is a parameter and is not added: batch norm's mean would take it out again, whatever it is. So its
    gradient is exactly 0, and not rounding, which Adam or a learned rule would make something of.
    """

    def __init__(self, channels: int, outputs: int, kernel: int, margin: int, *, bias: bool) -> None:
        super().__init__(channels, outputs, kernel, padding=margin, bias=bias)
        self.margin = margin

    def forward(self, x: Tensor) -> Tensor:
        return convolution(x, self.weight, self.margin)


class BatchNorm(nn.BatchNorm2d):
    """(x − mean) / √(variance + ε) · γ + β, per channel; nothing is kept from one batch to the next."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def scaling(self, x: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
        """What x, `[n, h, w, c]`, is multiplied with, and what is added then: `[c]`, `[c]`.

        `count`: how many examples, from the first on, the statistics are of; None: all.
        """
        mean, variance = moments(x if count is None else x[:count])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - mean * scale

    def forward(self, x: Tensor, count: int | None = None) -> Tensor:
        scale, shift = self.scaling(x, count)
        return torch.addcmul(shift, x, scale)
