"""What the peers that use torch share: the array functions of the equations, and copies of parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metalearn_benchmarks.speed.work import Work


class TorchArrays:
    """The array functions that the equations of `work` need, by torch."""

    relu, sigmoid, tanh = staticmethod(torch.relu), staticmethod(torch.sigmoid), staticmethod(torch.tanh)
    stack, concatenate = staticmethod(torch.stack), staticmethod(torch.cat)

    @staticmethod
    def value_and_grad(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
        def both(*arguments: Tensor) -> tuple[Tensor, Tensor]:
            grad, value = torch.func.grad_and_value(function)(*arguments)
            return value, grad

        return both

    @staticmethod
    def split(x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.chunk(parts, -1)

    @staticmethod
    def stop_gradient(x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def zeros(shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape)


def trainable_copies(work: Work) -> list[Tensor]:
    """Return copies of θ⁰ and φ that need gradients and that an optimiser may change in place."""
    return [x.clone().requires_grad_() for x in (work.theta, *work.phi)]
