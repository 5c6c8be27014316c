"""Launches the kernels of `coordinatewise_triton` on a GPU, behind the operators of `operators`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metalearn_core.kernels.coordinatewise_triton import (
    cell_kernel,
    cell_vjp_kernel,
    network_kernel,
    network_vjp_kernel,
)

BLOCK = 64
"""Coordinates that one program takes."""

WARPS = 8
"""Warps of one program. With these two numbers a network of 32 features stays (almost) in the registers."""


def _launch(kernel: Any, x: Tensor, tensors: list[Tensor], *constants: Any) -> None:
    """One program for each block of each group. `constants`: the shape, then how long the parameters are."""
    groups, rows, _, n = x.shape
    shape = constants[0] if isinstance(constants[0], tuple) else constants[:-1]
    side = max(16, 1 << (max(shape) - 1).bit_length())  # the next power of two
    blocks = _blocks(rows * n)
    kernel[(blocks, groups)](*tensors, rows, n, *constants, side, BLOCK, num_warps=WARPS)


def _blocks(coordinates: int) -> int:
    """The number of programs that a group of so many coordinates needs."""
    return -(-coordinates // BLOCK)


def _parts(x: Tensor, parameters: Tensor) -> Tensor:
    """Room for each block's part of the parameters' gradient."""
    return parameters.new_empty(len(x), _blocks(x.shape[1] * x.shape[3]), parameters.shape[1])


def _features(x: Tensor, count: int) -> Tensor:
    return x.new_empty(*x.shape[:2], count, x.shape[3])


def network(x: Tensor, parameters: Tensor, widths: list[int], activation: int) -> Tensor:
    """As `torch.ops.metalearn.network`, for contiguous tensors."""
    y = _features(x, widths[-1])
    _launch(network_kernel, x, [x, parameters, y], tuple(widths), activation, parameters.shape[1])
    return y


def network_vjp(
    x: Tensor, parameters: Tensor, cotangent: Tensor, widths: list[int], activation: int
) -> tuple[Tensor, Tensor]:
    """As `torch.ops.metalearn.network_vjp`, for contiguous tensors."""
    grad_x, parts = torch.empty_like(x), _parts(x, parameters)
    tensors = [x, parameters, cotangent, grad_x, parts]
    _launch(network_vjp_kernel, x, tensors, tuple(widths), activation, parameters.shape[1])
    return grad_x, parts.sum(1)


def cell(x: Tensor, h: Tensor, c: Tensor, parameters: Tensor, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch.ops.metalearn.cell`, for contiguous tensors."""
    answers = _features(x, outputs), torch.empty_like(h), torch.empty_like(c)
    _launch(
        cell_kernel, x, [x, h, c, parameters, *answers], x.shape[2], h.shape[2], outputs, parameters.shape[1]
    )
    return answers


def cell_vjp(
    x: Tensor, h: Tensor, c: Tensor, parameters: Tensor, dy: Tensor, dh: Tensor, dc: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `torch.ops.metalearn.cell_vjp`, for contiguous tensors."""
    grads, parts = (torch.empty_like(x), torch.empty_like(h), torch.empty_like(c)), _parts(x, parameters)
    tensors = [x, h, c, parameters, dy, dh, dc, *grads, parts]
    _launch(cell_vjp_kernel, x, tensors, x.shape[2], h.shape[2], dy.shape[2], parameters.shape[1])
    return (*grads, parts.sum(1))
