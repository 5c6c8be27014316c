"""The layers of convolutional base-learners. Activations are `[n, h, w, channels]`, the channels last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metalearn_benchmarks.image_learners.convolution import convolution


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

    def forward(self, x: Tensor, count: int | None = None) -> Tensor:
        """`count`: how many examples, from the first on, the statistics are of; None: all."""
        variance, mean = torch.var_mean(x[:count], (0, 1, 2), correction=0)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias - mean * scale, x, scale)


def max_pool(x: Tensor) -> Tensor:
    """The largest of each 2×2: `[n, h, w, c]` to `[n, h // 2, w // 2, c]`; an odd row or column is left out.

    Of equal ones the first counts, as in `nn.MaxPool2d`. Made of comparisons, it has every derivative.
    """
    height, width = (2 * (side // 2) for side in x.shape[1:3])
    rows = (x[:, row:height:2] for row in (0, 1))
    above, below = (_larger(row[:, :, 0:width:2], row[:, :, 1:width:2]) for row in rows)
    return _larger(above, below)


def _larger(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > a, b, a)
