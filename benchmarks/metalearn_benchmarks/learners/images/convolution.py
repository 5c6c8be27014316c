"""Convolutions of many tasks at once, each task with weights of its own, to derivatives of any order.

Under `vmap` over tasks torch's convolution becomes one grouped convolution. On a CPU that is slow where a
group is narrow (the first layer has 1 or 3 channels) and copies activations back and forth. The operators
here take one ordinary convolution for each task instead, with the channels last, which is the layout that
oneDNN works in, and a few images at a time, so that what it returns is copied while it is in cache. There
are three of them, each linear in both its tensors, and the derivatives of each are the other two:

    y = convolution(x, w)    dx = convolution_input(dy, w)    dw = convolution_weight(x, dy)

Shapes: x `[groups, n, h, w, channels]`, weights `[groups, out, channels, k, k]`; a group is a task, or a task
of a seed. Stride 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metalearn_benchmarks.learners.images.operators import (
    Batching,
    Operator,
    define_operator,
    fold_batch,
    unfold_batch,
)

aten = torch.ops.aten

PIECE = 2**21
"""Numbers that are computed at a time, about: 8 MB in float32."""


def convolution(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Convolve images with stride 1.

    On other devices than a CPU this is torch's own convolution, which `vmap` groups.

    Args:
        x: Images `[n, h, w, channels]`.
        weight: `[out, channels, k, k]`.
        padding: Zeros around the images.

    Returns:
        `[n, h', w', out]`.
    """
    if x.device.type == "cpu":
        whole: Tensor = _of_groups(x.unsqueeze(0), weight.unsqueeze(0), padding)
        return whole.squeeze(0)
    return nn.functional.conv2d(_first(x), weight, padding=padding).permute(0, 2, 3, 1)


def _first(x: Tensor) -> Tensor:
    """`[n, h, w, channels]` as torch has it, `[n, channels, h, w]`, without moving anything."""
    if x.shape[-1] == 1 and x.is_contiguous():
        # the stride of an axis of 1 is anybody's guess, and torch guesses the layout by it
        _, height, width, _ = x.shape
        return x.as_strided((len(x), 1, height, width), (height * width, 1, width, 1))
    return x.permute(0, 3, 1, 2)


def _in_pieces(out: Tensor, weight: Tensor, made: Callable[[int, slice, Tensor], Tensor]) -> Tensor:
    """`out`, `[groups, n, h, w, channels]`, filled with `made(group, images, its weight)`, channels first."""
    groups, n = out.shape[:2]
    size = max(1, PIECE * n // max(1, out[0].numel()))
    for group in range(groups):
        own = weight[group].contiguous(memory_format=torch.channels_last)
        for start in range(0, n, size):
            images = slice(start, start + size)
            piece = made(group, images, own).permute(0, 2, 3, 1)
            if groups == 1 and size >= n:
                return piece.unsqueeze(0).contiguous()
            out[group, images] = piece
    return out


def _convolution(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    def made(group: int, images: slice, own: Tensor) -> Tensor:
        return nn.functional.conv2d(_first(x[group, images]), own, padding=padding)

    return _in_pieces(_fake_convolution(x, weight, padding), weight, made)


def _backward(cotangent: Tensor, x: Tensor, weight: Tensor, padding: int, which: int) -> Tensor:
    wanted = [which == 0, which == 1, False]
    answers = aten.convolution_backward(
        _first(cotangent), _first(x), weight, None,
        [1, 1], [padding, padding], [1, 1], False, [0, 0], 1, wanted,
    )  # fmt: skip
    answer: Tensor = answers[which]
    return answer


def _input(cotangent: Tensor, weight: Tensor, padding: int) -> Tensor:
    out = _fake_input(cotangent, weight, padding)

    def made(group: int, images: slice, own: Tensor) -> Tensor:
        # of the input only the shape is read
        return _backward(cotangent[group, images], out[group, images], own, padding, 0)

    return _in_pieces(out, weight, made)


def _weight(x: Tensor, cotangent: Tensor, padding: int) -> Tensor:
    out = _fake_weight(x, cotangent, padding)
    for group in range(len(x)):
        # of the weight only the shape is read
        out[group] = _backward(cotangent[group], x[group], out[group], padding, 1)
    return out


def _fake_convolution(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    groups, n, height, width, _ = x.shape
    less = weight.shape[-1] - 1 - 2 * padding
    return x.new_empty(groups, n, height - less, width - less, weight.shape[1])


def _fake_input(cotangent: Tensor, weight: Tensor, padding: int) -> Tensor:
    groups, n, height, width, _ = cotangent.shape
    more = weight.shape[-1] - 1 - 2 * padding
    return cotangent.new_empty(groups, n, height + more, width + more, weight.shape[2])


def _fake_weight(x: Tensor, cotangent: Tensor, padding: int) -> Tensor:
    side = x.shape[2] - cotangent.shape[2] + 1 + 2 * padding
    return x.new_empty(len(x), cotangent.shape[-1], x.shape[-1], side, side)


def _convolution_vjp(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    (x, weight), (padding,), needed = ctx.saved_tensors, ctx.numbers, ctx.needs_input_grad
    return (
        _input_of_groups(cotangent, weight, padding) if needed[0] else None,
        _weight_of_groups(x, cotangent, padding) if needed[1] else None,
        None,
    )


def _input_vjp(ctx: Any, x: Tensor) -> tuple[Tensor | None, ...]:
    (cotangent, weight), (padding,), needed = ctx.saved_tensors, ctx.numbers, ctx.needs_input_grad
    return (
        _of_groups(x, weight, padding) if needed[0] else None,
        _weight_of_groups(x, cotangent, padding) if needed[1] else None,
        None,
    )


def _weight_vjp(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
    (x, cotangent), (padding,), needed = ctx.saved_tensors, ctx.numbers, ctx.needs_input_grad
    return (
        _input_of_groups(cotangent, weight, padding) if needed[0] else None,
        _of_groups(x, weight, padding) if needed[1] else None,
        None,
    )


def _sharing(operator: Operator) -> Batching:
    """The rule for `vmap`: with weights of its own a batch is more groups, with shared ones more images."""

    def batched(
        info: Any, dims: tuple[int | None, ...], images: Tensor, weight: Tensor, padding: int
    ) -> tuple[Tensor, int]:
        size = info.batch_size
        if dims[1] is None:
            answer = operator(images.movedim(dims[0] or 0, 1).flatten(1, 2), weight, padding)
            return answer.unflatten(1, (size, -1)), 1
        answer = operator(fold_batch(images, dims[0], size), fold_batch(weight, dims[1], size), padding)
        return unfold_batch(answer, size), 0

    return batched


def _both(inputs: tuple[Any, ...], output: Any) -> tuple[Tensor, ...]:
    return inputs[:2]


_of_groups = define_operator(
    "convolution(Tensor x, Tensor weight, int padding) -> Tensor",
    _convolution, _fake_convolution, backward=_convolution_vjp, saved=_both, batching=_sharing,
)  # fmt: skip
_input_of_groups = define_operator(
    "convolution_input(Tensor cotangent, Tensor weight, int padding) -> Tensor",
    _input, _fake_input, backward=_input_vjp, saved=_both, batching=_sharing,
)  # fmt: skip
_weight_of_groups = define_operator(
    "convolution_weight(Tensor x, Tensor cotangent, int padding) -> Tensor",
    _weight, _fake_weight, backward=_weight_vjp, saved=_both,
)  # fmt: skip
