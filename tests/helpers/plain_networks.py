"""Image classifiers of torch's own layers, in float64, that tests compare with."""

from __future__ import annotations

import functools

import torch
from torch import nn

F = nn.functional


class Cosine(nn.Module):
    """Chen et al.'s head. Not by `weight_norm`, whose second derivative in torch 2.13 is wrong."""

    def __init__(self, features, ways):
        super().__init__()
        self.direction, self.magnitude = (
            nn.Parameter(torch.ones(ways, features)),
            nn.Parameter(torch.ones(ways)),
        )

    def forward(self, x):
        weight = F.normalize(self.direction) * self.magnitude[:, None]
        return 2 * F.linear(x / (x.norm(dim=1, keepdim=True) + 1e-5), weight)


class Normalised(nn.BatchNorm2d):
    """Batch norm in training mode; or, where `count` is set, with the statistics of that many examples."""

    count = None

    def forward(self, x):
        if self.count is None:
            return super().forward(x)
        seen = x[: self.count]
        mean, variance = seen.mean((0, 2, 3)), seen.var((0, 2, 3), correction=0)
        scaled = (x - mean[:, None, None]) / (variance[:, None, None] + self.eps).sqrt()
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


def plain_conv_4(channels, size, width, padding, ways=5, head="linear"):
    layers = []
    for before in (channels, width, width, width):
        layers += [
            nn.Conv2d(before, width, 3, padding=padding),
            Normalised(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    body = nn.Sequential(*layers, nn.Flatten())
    features = body.double()(torch.zeros(2, channels, size, size).double()).shape[1]
    last = nn.Linear(features, ways) if head == "linear" else Cosine(features, ways)
    return nn.Sequential(*body, last).double()


class PlainResidual(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        convolve = functools.partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
        self.convolutions = nn.ModuleList(convolve(c, width) for c in (channels, width, width))
        self.norms = nn.ModuleList(Normalised(width) for _ in range(3))
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), Normalised(width))

    def forward(self, x):
        beside = self.shortcut(x)
        for i in range(3):
            x = self.norms[i](self.convolutions[i](x))
            x = x if i == 2 else F.leaky_relu(x, 0.1)
        return F.max_pool2d(F.leaky_relu(x + beside, 0.1), 2)


def plain_resnet_12(channels, size, widths, ways=5):
    blocks, before = [], channels
    for width in widths:
        blocks.append(PlainResidual(before, width))
        before = width
    side = size // 16
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(before * side**2, ways)).double()
