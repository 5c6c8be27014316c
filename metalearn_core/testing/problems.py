"""Small problems to try rules on, each a record of plain numbers whose repr makes it again.

An architecture makes a base-learner; a problem adds tasks, a start θ⁰, T and a dtype to it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from metalearn_core.learner import BaseLearner
from metalearn_core.task import Task
from metalearn_core.training.parameters import forked_rng

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "relu": nn.ReLU,
    "elu": nn.ELU,
}
SMOOTH = ("tanh", "sigmoid", "softplus")
"""Activations without a kink."""

Loss: TypeAlias = Literal["mse", "cross-entropy"]
DtypeName: TypeAlias = Literal["float64", "float32", "bfloat16", "float16"]


@attrs.frozen
class Architecture:
    """A multilayer perceptron: the widths from inputs to outputs; the first `frozen` layers stay."""

    widths: tuple[int, ...]
    activation: str = "tanh"
    frozen: int = 0
    bias: bool = True
    loss: Loss = "mse"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.widths[:1]

    @property
    def outputs(self) -> int:
        """The width of the prediction."""
        return self.widths[-1]

    def learner(self, dtype: torch.dtype = torch.float64) -> BaseLearner:
        """The base-learner, with the same frozen parameters every time."""
        layers: list[nn.Module] = []
        with forked_rng(torch.Generator().manual_seed(0)):
            for index, (before, after) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
                linear = nn.Linear(before, after, self.bias).requires_grad_(index >= self.frozen)
                layers += [linear, ACTIVATIONS[self.activation]()]
        return _learner(nn.Sequential(*layers[:-1]), self.loss, dtype)


@attrs.frozen
class ConvolutionalArchitecture:
    """A small convolutional network: 3×3 or narrower kernels over an image, then a linear head."""

    channels: tuple[int, ...]
    image: tuple[int, int] = (4, 4)
    kernel: tuple[int, int] = (3, 3)
    outputs: int = 2
    activation: str = "tanh"
    frozen: int = 0
    loss: Loss = "mse"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return (self.channels[0], *self.image)

    def learner(self, dtype: torch.dtype = torch.float64) -> BaseLearner:
        """The base-learner, with the same frozen parameters every time."""
        layers: list[nn.Module] = []
        padding = (self.kernel[0] // 2, self.kernel[1] // 2)
        with forked_rng(torch.Generator().manual_seed(0)):
            for index, (before, after) in enumerate(zip(self.channels, self.channels[1:], strict=False)):
                convolution = nn.Conv2d(before, after, self.kernel, padding=padding)
                layers += [convolution.requires_grad_(index >= self.frozen), ACTIVATIONS[self.activation]()]
            pixels = math.prod(
                side + 1 - size % 2 for side, size in zip(self.image, self.kernel, strict=True)
            )
            if len(self.channels) == 1:
                pixels = math.prod(self.image)
            head = nn.Linear(self.channels[-1] * pixels, self.outputs)
        return _learner(nn.Sequential(*layers, nn.Flatten(), head), self.loss, dtype)


@attrs.frozen
class OddArchitecture:
    """Parameters of any shapes, such as `()` or `(2, 1, 3)`; `unused` adds one that the loss never sees."""

    shapes: tuple[tuple[int, ...], ...]
    unused: bool = False
    outputs: int = 1
    activation: str = "tanh"
    loss: Loss = "mse"
    input_shape: tuple[int, ...] = (1,)

    def learner(self, dtype: torch.dtype = torch.float64) -> BaseLearner:
        """The base-learner."""
        return _learner(_Odd(self.shapes, self.unused, self.outputs), self.loss, dtype)


class _Odd(nn.Module):
    """y_k = Σ_p sin(Σ p + k + x·mean p) over its parameters p."""

    def __init__(self, shapes: tuple[tuple[int, ...], ...], unused: bool, outputs: int) -> None:
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.empty(shape)) for shape in shapes])
        self.unused = nn.Parameter(torch.empty(2)) if unused else None
        self.outputs = outputs
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        columns = [
            sum(((part.sum() + k + x * part.mean()).sin() for part in self.parts), torch.zeros_like(x))
            for k in range(self.outputs)
        ]
        return torch.cat(columns, -1)


AnyArchitecture: TypeAlias = Architecture | ConvolutionalArchitecture | OddArchitecture


@attrs.frozen(slots=False)
class Problem:
    """Everything that `adapt` and `meta_gradient` take beside a rule, made from plain numbers.

    Args:
        architecture: what makes the learner.
        tasks: of the meta-batch.
        support, query: examples a task.
        steps: T.
        seed: of θ⁰, inputs and targets.
        dtype: of everything.
        solved: the targets are the predictions at θ⁰, so that there every gradient is 0.
    """

    architecture: AnyArchitecture
    tasks: int = 1
    support: int = 5
    query: int = 5
    steps: int = 1
    seed: int = 0
    dtype: DtypeName = "float64"
    solved: bool = False

    @cached_property
    def learner(self) -> BaseLearner:
        """The base-learner."""
        return self.architecture.learner(getattr(torch, self.dtype))

    @cached_property
    def theta(self) -> Tensor:
        """θ⁰, `[n]`, as the learner draws it."""
        return self.learner.initial(torch.Generator().manual_seed(self.seed))

    @cached_property
    def task(self) -> Task:
        """The stacked meta-batch: normal inputs; normal targets, or classes."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        batches = [self._batch(examples, generator) for examples in (self.support, self.query)]
        return Task.of([tensor for batch in batches for tensor in batch], stacked=True)

    def _batch(self, examples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        def normal(*shape: int) -> Tensor:
            shape = (self.tasks, examples, *shape)
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.theta.dtype)

        inputs = normal(*self.architecture.input_shape)
        if self.solved:
            return inputs, torch.stack([self.learner.predict(self.theta, x).detach() for x in inputs])
        if self.architecture.loss == "mse":
            return inputs, normal(self.architecture.outputs)
        classes = (self.tasks, examples)
        return inputs, torch.randint(self.architecture.outputs, classes, generator=generator)


def _learner(module: nn.Module, loss: Loss, dtype: torch.dtype) -> BaseLearner:
    criterion = nn.functional.mse_loss if loss == "mse" else nn.functional.cross_entropy
    learner = BaseLearner(module.to(dtype), criterion)
    learner.check_first_batch = False  # there are thousands of them, all of layers that torch batches right
    return learner
