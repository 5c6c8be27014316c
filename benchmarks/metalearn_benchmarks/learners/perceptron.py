"""The multilayer perceptron of the paper's sine regression."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from metalearn_core import BaseLearner, UsageError

MAX_PARAMETERS = 10**9
"""Parameters of a network that a mistake in its widths must not exceed."""


def multilayer_perceptron(hidden: Sequence[int] = (40, 40), inputs: int = 1, outputs: int = 1) -> BaseLearner:
    """Build a ReLU network under the mean squared error; 1-40-40-1 is the paper's for sine regression.

    Weights are drawn as `nn.Linear` draws them. Biases start at 0, as in the authors' program.

    Args:
        hidden: The widths of the hidden layers.
        inputs: Features of an input.
        outputs: Features of an output.

    Raises:
        UsageError: A width is no integer >= 1.
    """
    if not isinstance(hidden, list | tuple):
        raise UsageError(f"hidden must be a list of widths >= 1, got {hidden!r}")
    widths = [inputs, *hidden, outputs]
    if not all(type(width) is int and width > 0 for width in widths):
        raise UsageError(f"widths must be integers >= 1, got {widths}")
    size = sum((before + 1) * after for before, after in pairwise(widths))
    if size > MAX_PARAMETERS:
        raise UsageError(f"widths {widths} make {size:,} parameters, and the most is {MAX_PARAMETERS:,}")
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return BaseLearner(nn.Sequential(*layers[:-1]), mean_squared_error, initialise=_no_bias)


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean of (prediction − target)² over all elements: `[]`."""
    return nn.functional.mse_loss(prediction, target)


def _no_bias(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.reset_parameters()
            nn.init.zeros_(part.bias)
