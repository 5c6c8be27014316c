"""The work on images: noise in the shapes of few-shot tasks, and Conv-4 of torch's own layers."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metalearn_benchmarks.speed.settings import Setting
from metalearn_core import BaseLearner, Batch, Task, base_learners

WAYS, QUERY = 5, 15
"""Classes of a task, and query images of each."""
COLOUR = 64
"""Images of so many pixels a side are in colour, smaller ones grey."""
BLOCKS = 4


def channels(setting: Setting) -> int:
    """Return the number of channels of an image."""
    return 3 if setting.size >= COLOUR else 1


def learner(setting: Setting) -> BaseLearner:
    """Return Conv-4 in its usual form, with padding."""
    options = {"ways": WAYS, "channels": channels(setting), "size": setting.size, "width": setting.width}
    made: BaseLearner = base_learners()["conv-4"](**options)
    return made


@attrs.frozen
class Noise:
    """A task family of random images, which are as much work as any others.

    Pixels are drawn from U[0, 1], and the classes mean nothing.
    """

    setting: Setting

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "validation", "test")

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        shape = (channels(self.setting), self.setting.size, self.setting.size)

        def drawn(each: int) -> Batch:
            images = torch.rand(count, WAYS * each, *shape, generator=generator)
            classes = torch.arange(WAYS).repeat_interleave(each).expand(count, -1)
            return Batch(images, classes.contiguous(), stacked=True)

        return Task(drawn(self.setting.shots), drawn(QUERY), stacked=True)

    def examples(self, split: str) -> Batch:
        raise NotImplementedError("images drawn at random have no flat data behind their tasks")


def plain(setting: Setting) -> nn.Sequential:
    """Return Conv-4 as a reader of the paper writes it; its parameters are in θ's order."""
    layers, before = list[nn.Module](), channels(setting)
    for _ in range(BLOCKS):
        convolution = nn.Conv2d(before, setting.width, 3, padding=1)
        norm = nn.BatchNorm2d(setting.width, track_running_stats=False)
        layers += [convolution, norm, nn.ReLU(), nn.MaxPool2d(2)]
        before = setting.width
    side = setting.size // 2**BLOCKS
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side**2, WAYS))


def loss_of(module: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return `f(theta, images, classes)`: cross entropy of the module with the parameters θ, `[n]`."""
    shapes = {name: p.shape for name, p in module.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]

    def loss(theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        parts = zip(shapes.items(), torch.split(theta, sizes), strict=True)
        values = {name: part.reshape(shape) for (name, shape), part in parts}
        return nn.functional.cross_entropy(functional_call(module, values, (inputs,)), targets)

    return loss


def operations(setting: Setting) -> float:
    """Return the floating-point operations of a forward pass of one image."""
    total, before, side = 0.0, channels(setting), setting.size
    for _ in range(BLOCKS):
        total += 2 * 9 * before * setting.width * side**2
        before, side = setting.width, side // 2
    return total + 2 * before * side**2 * WAYS
