"""The last layer of an image classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metalearn_core import UsageError, unknown

HEADS = ("linear", "cosine")


class LinearHead(nn.Linear):
    """A linear layer. Weights are as torch draws them and biases are 0, as in the authors' program."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.bias)


class CosineHead(nn.Module):
    """Scores s · g_c · cos(features, v_c) for each class c (Baseline++; Chen et al., 2019).

    As in Chen et al.'s program the weight of a class has a direction v and a magnitude g (weight norm). Both
    are learned, and g starts at the norm of v. Features are divided by their norm + 1e-5.

    Args:
        features: Features of an input.
        ways: Classes.
        scale: The constant s. Chen et al. have 2 up to 200 classes and 10 beyond.
    """

    def __init__(self, features: int, ways: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.direction = nn.Parameter(torch.empty(ways, features))
        self.magnitude = nn.Parameter(torch.empty(ways))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw directions as `nn.Linear` draws weights."""
        nn.init.kaiming_uniform_(self.direction, a=5**0.5)
        with torch.no_grad():
            self.magnitude.copy_(self.direction.norm(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.direction * (self.magnitude / self.direction.norm(dim=1)).unsqueeze(1)
        scores: Tensor = self.scale * (x / (x.norm(dim=1, keepdim=True) + 1e-5)) @ weight.T
        return scores


def make_head(kind: str, features: int, ways: int, scale: float) -> nn.Module:
    """Build a head by its name.

    Args:
        kind: One of `HEADS`.
        features: Features of an input.
        ways: Classes.
        scale: The factor of a cosine head.

    Raises:
        UsageError: The name is unknown, or the scale is no positive number.
    """
    if kind not in HEADS:
        raise unknown("head", kind, HEADS)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        raise UsageError(f"scale must be a number > 0, got {scale!r}")
    return LinearHead(features, ways) if kind == "linear" else CosineHead(features, ways, float(scale))
