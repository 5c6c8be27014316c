"""The largest of each 2×2 of an affine function of images, to derivatives of any order.

What is largest is decided first; to pick it is then linear, with an adjoint that puts it back in its place.
Shapes: images `[groups, n, h, w, c]`, what is picked `[groups, n, h // 2, w // 2, c]`; an odd row or column
is left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metalearn_benchmarks.learners.images.operators import define_operator

PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))


def max_pool(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return the largest of each 2×2 of scale · x + shift.

    Of equal values the first counts, as in `nn.MaxPool2d`.

    Args:
        x: Images `[n, h, w, c]`.
        scale: `[c]`.
        shift: `[c]`.

    Returns:
        `[n, h // 2, w // 2, c]`.
    """
    # the largest of scale · x, which is the smallest x where scale is negative
    picked, _ = _extreme_of_groups(x.unsqueeze(0), scale.detach().unsqueeze(0))
    return torch.addcmul(shift, picked.squeeze(0), scale)


def _quarters(x: Tensor) -> list[Tensor]:
    """The four images `[..., h // 2, w // 2, c]` of what stands in each place of a 2×2."""
    height, width = (2 * (side // 2) for side in x.shape[2:4])
    return [x[:, :, row:height:2, column:width:2] for row, column in PLACES]


def _extreme(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The x whose product with `scale`, `[groups, c]`, is largest; and the number of its place."""
    sign = None
    if (scale < 0).any():
        sign = torch.where(scale < 0, -1.0, 1.0).to(x.dtype)[:, None, None, None]
        x = x * sign
    a, b, c, d = _quarters(x)
    right, right_below = b > a, d > c
    above, below = torch.maximum(a, b), torch.maximum(c, d)
    lower = below > above
    column = (right & ~lower) | (right_below & lower)
    value = torch.maximum(above, below)
    return value if sign is None else value * sign, lower.to(torch.uint8).mul_(2).add_(column)


def _pick(x: Tensor, places: Tensor) -> Tensor:
    first, *others = (
        (part, (places == number).to(x.dtype)) for number, part in enumerate(_quarters(x))
    )  # fmt: skip
    out = torch.mul(*first)  # by 0 and 1: to choose by a condition takes three times as long
    for part, chosen in others:
        out.addcmul_(part, chosen)
    return out


def _place(picked: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    odd = height % 2 or width % 2
    out = _fake_place(picked, places, height, width)
    if odd:
        out.zero_()
    for number, part in enumerate(_quarters(out)):
        torch.mul(picked, places == number, out=part)
    return out


def _smaller(x: Tensor) -> list[int]:
    groups, n, height, width, channels = x.shape
    return [groups, n, height // 2, width // 2, channels]


def _fake_place(picked: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    return picked.new_empty(*picked.shape[:2], height, width, picked.shape[-1])


def _extreme_vjp(ctx: Any, cotangent: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, places = ctx.saved_tensors
    return _place_of_groups(cotangent, places, *x.shape[2:4]), None


def _place_vjp(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    (places,) = ctx.saved_tensors
    return _pick_of_groups(cotangent, places), None, None, None


def _pick_vjp(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    x, places = ctx.saved_tensors
    return _place_of_groups(cotangent, places, *x.shape[2:4]), None


def _fake_extreme(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(_smaller(x)), x.new_empty(_smaller(x), dtype=torch.uint8)


_extreme_of_groups = define_operator(
    "extreme(Tensor x, Tensor scale) -> (Tensor, Tensor)", _extreme, _fake_extreme,
    backward=_extreme_vjp, saved=lambda inputs, output: (inputs[0], output[1]), constants=1,
)  # fmt: skip
_pick_of_groups = define_operator(
    "pick(Tensor x, Tensor places) -> Tensor", _pick, lambda x, places: x.new_empty(_smaller(x)),
    backward=_pick_vjp, saved=lambda inputs, output: inputs,
)  # fmt: skip
_place_of_groups = define_operator(
    "place(Tensor picked, Tensor places, int height, int width) -> Tensor", _place, _fake_place,
    backward=_place_vjp, saved=lambda inputs, output: inputs[1:2],
)  # fmt: skip
