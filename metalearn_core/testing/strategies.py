"""Hypothesis strategies: small networks, tasks for them, starts θ⁰ and numbers of inner steps.

Numbers come from a seed that hypothesis draws; it shrinks shapes, not elements. All in float64.
"""

from __future__ import annotations

import attrs
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from metalearn_core.learner import BaseLearner
from metalearn_core.task import Task

SMOOTH = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
ACTIVATIONS = {**SMOOTH, "relu": nn.ReLU, "elu": nn.ELU}


@attrs.frozen
class Architecture:
    """A multilayer perceptron: the widths from inputs to outputs, and how many layers are frozen."""

    widths: tuple[int, ...]
    activation: str = "tanh"
    frozen: int = 0

    def learner(self) -> BaseLearner:
        """The base-learner, under the mean squared error, in float64."""
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            linear = nn.Linear(before, after).requires_grad_(index >= self.frozen)
            layers += [linear, ACTIVATIONS[self.activation]()]
        return BaseLearner(nn.Sequential(*layers[:-1]).double(), nn.functional.mse_loss)


@attrs.frozen(eq=False)
class Problem:
    """Everything that `adapt` and `meta_gradient` take beside a rule."""

    learner: BaseLearner
    theta: Tensor
    task: Task
    steps: int


def seeds() -> st.SearchStrategy[int]:
    """Seeds of generators."""
    return st.integers(0, 2**31)


def inner_steps(most: int = 5) -> st.SearchStrategy[int]:
    """T, from 0 to `most`."""
    return st.integers(0, most)


@st.composite
def architectures(draw: st.DrawFn, *, smooth: bool = False) -> Architecture:
    """Perceptrons with 0 to 2 hidden layers, the first layers frozen or none; `smooth`: no kinks."""
    hidden = draw(st.lists(st.integers(1, 6), max_size=2))
    widths = (draw(st.integers(1, 3)), *hidden, draw(st.integers(1, 3)))
    activation = draw(st.sampled_from(sorted(SMOOTH if smooth else ACTIVATIONS)))
    return Architecture(widths, activation, draw(st.integers(0, len(hidden))))


@st.composite
def tasks(draw: st.DrawFn, architecture: Architecture, *, most: int = 4) -> Task:
    """Meta-batches of 1 to `most` tasks whose inputs and targets fit the architecture."""
    generator = torch.Generator().manual_seed(draw(seeds()))
    count = draw(st.integers(1, most))
    examples = [draw(st.integers(1, 5)) for _ in range(2)]
    tensors = [
        torch.randn(count, n, columns, generator=generator, dtype=torch.float64)
        for n in examples
        for columns in (architecture.widths[0], architecture.widths[-1])
    ]
    return Task.of(tensors, stacked=True)


@st.composite
def thetas(draw: st.DrawFn, learner: BaseLearner) -> Tensor:
    """Starts θ⁰, `[n]`, as the learner draws them."""
    return learner.initial(torch.Generator().manual_seed(draw(seeds())))


@st.composite
def problems(draw: st.DrawFn, *, smooth: bool = False) -> Problem:
    """A learner with its start, tasks and T; `smooth` as in `architectures`."""
    architecture = draw(architectures(smooth=smooth))
    learner = architecture.learner()
    return Problem(learner, draw(thetas(learner)), draw(tasks(architecture)), draw(inner_steps()))
