"""Convolutions of many tasks at once, each task with weights of its own, to derivatives of any order.

Under `vmap` over tasks torch's convolution becomes one grouped convolution. On a CPU that is slow where a
group is narrow (the first layer has 1 or 3 channels) and copies activations back and forth. The operators
here take one ordinary convolution for each task instead, with the channels last, which is the layout that
oneDNN works in, and a few images at a time, so that what it returns is copied while it is in cache. There
are three of them, each linear in both its tensors, and the derivatives of each are the other two:

    y = convolution(x, w)    dx = convolution_input(dy, w)    dw = convolution_weight(x, dy)

Shapes: x `[groups, n, h, w, channels]`, weights `[groups, out, channels, k, k]`; a group is a task, or a task
of a seed. Stride 1. On another device the layer is torch's own, grouped under `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

aten = torch.ops.aten

PIECE = 2**21
"""Numbers of one image batch that are computed at a time, about: 8 MB in float32."""

_library: Any = torch.library.Library("metalearn_benchmarks", "DEF")  # type: ignore[no-untyped-call]
for _schema in (
    "convolution(Tensor x, Tensor weight, int padding) -> Tensor",
    "convolution_input(Tensor cotangent, Tensor weight, int padding) -> Tensor",
    "convolution_weight(Tensor x, Tensor cotangent, int padding) -> Tensor",
):
    _library.define(_schema)
_ops = torch.ops.metalearn_benchmarks


def convolution(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Images `[n, h, w, channels]` and weights `[out, channels, k, k]` to `[n, h', w', out]`; stride 1.

    Raises whatever torch does for shapes that do not fit.
    """
    if x.device.type == "cpu":
        whole: Tensor = _ops.convolution(x.unsqueeze(0), weight.unsqueeze(0), padding)
        return whole.squeeze(0)
    return nn.functional.conv2d(x.permute(0, 3, 1, 2), weight, padding=padding).permute(0, 2, 3, 1)


def _first(x: Tensor) -> Tensor:
    """`[n, h, w, channels]` as torch has it, `[n, channels, h, w]`, without moving anything."""
    return x.permute(0, 3, 1, 2)


def _weights(weight: Tensor) -> list[Tensor]:
    return [w.contiguous(memory_format=torch.channels_last) for w in weight]


def _in_pieces(out: Tensor, made: Callable[[int, slice], Tensor]) -> Tensor:
    """`out`, `[groups, n, h, w, channels]`, filled with `made(group, images)`, channels first."""
    groups, n = out.shape[:2]
    size = max(1, PIECE * n // max(1, out[0].numel()))
    if groups == 1 and size >= n:
        return made(0, slice(None)).permute(0, 2, 3, 1).unsqueeze(0).contiguous()
    for group in range(groups):
        for start in range(0, n, size):
            images = slice(start, start + size)
            out[group, images] = made(group, images).permute(0, 2, 3, 1)
    return out


def _convolution(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    out, weights = _fake_convolution(x, weight, padding), _weights(weight)

    def made(group: int, images: slice) -> Tensor:
        return nn.functional.conv2d(_first(x[group, images]), weights[group], padding=padding)

    return _in_pieces(out, made)


def _backward(cotangent: Tensor, x: Tensor, weight: Tensor, padding: int, which: int) -> Tensor:
    wanted = [which == 0, which == 1, False]
    answers = aten.convolution_backward(
        _first(cotangent), _first(x), weight, None,
        [1, 1], [padding, padding], [1, 1], False, [0, 0], 1, wanted,
    )  # fmt: skip
    answer: Tensor = answers[which]
    return answer


def _convolution_input(cotangent: Tensor, weight: Tensor, padding: int) -> Tensor:
    out, weights = _fake_input(cotangent, weight, padding), _weights(weight)

    def made(group: int, images: slice) -> Tensor:
        # of the input only the shape is read
        return _backward(cotangent[group, images], out[group, images], weights[group], padding, 0)

    return _in_pieces(out, made)


def _convolution_weight(x: Tensor, cotangent: Tensor, padding: int) -> Tensor:
    out = _fake_weight(x, cotangent, padding)
    for group in range(len(x)):
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


for _name, _kernel, _fake in (
    ("convolution", _convolution, _fake_convolution),
    ("convolution_input", _convolution_input, _fake_input),
    ("convolution_weight", _convolution_weight, _fake_weight),
):
    _library.impl(_name, _kernel, "CPU")
    torch.library.register_fake(f"metalearn_benchmarks::{_name}", _fake, lib=_library)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.padding = inputs[2]


def _convolution_vjp(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    (x, weight), (of_x, of_weight, *_) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        _ops.convolution_input(cotangent, weight, ctx.padding) if of_x else None,
        _ops.convolution_weight(x, cotangent, ctx.padding) if of_weight else None,
        None,
    )


def _input_vjp(ctx: Any, x: Tensor) -> tuple[Tensor | None, ...]:
    (cotangent, weight), (of_cotangent, of_weight, *_) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        _ops.convolution(x, weight, ctx.padding) if of_cotangent else None,
        _ops.convolution_weight(x, cotangent, ctx.padding) if of_weight else None,
        None,
    )


def _weight_vjp(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
    (x, cotangent), (of_x, of_cotangent, *_) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        _ops.convolution_input(cotangent, weight, ctx.padding) if of_x else None,
        _ops.convolution(x, weight, ctx.padding) if of_cotangent else None,
        None,
    )


def _batching(name: str) -> Callable[..., tuple[Tensor, int]]:
    """The rule for `vmap`: a batch is more groups; where weights are shared, it is more images of a group."""
    operator = getattr(_ops, name)

    def batched(
        info: Any, dims: tuple[int | None, ...], first: Tensor, second: Tensor, padding: int
    ) -> tuple[Tensor, int]:
        size = info.batch_size
        if dims[1] is None and name != "convolution_weight":
            images = first.movedim(dims[0] or 0, 1)
            answer = operator(images.flatten(1, 2), second, padding)
            return answer.unflatten(1, (size, -1)), 1
        own, other = (
            x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((first, second), dims, strict=False)
        )
        answer = operator(own.flatten(0, 1), other.flatten(0, 1), padding)
        return answer.unflatten(0, (size, -1)), 0

    return batched


for _name, _vjp in (
    ("convolution", _convolution_vjp),
    ("convolution_input", _input_vjp),
    ("convolution_weight", _weight_vjp),
):
    _operator = f"metalearn_benchmarks::{_name}"
    torch.library.register_autograd(_operator, _vjp, setup_context=_keep, lib=_library)
    torch.library.register_vmap(_operator, _batching(_name), lib=_library)
