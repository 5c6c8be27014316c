"""How this package's operators are made: one axis of groups leads, and `vmap` makes more of them.

Each is an operator of torch, so that a traced program has it as one node, within an autograd function, so
that autograd, `vmap` and the transforms of `torch.func` take it in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_NAMESPACE = "metalearn_benchmarks"
_library: Any = torch.library.Library(_NAMESPACE, "DEF")  # type: ignore[no-untyped-call]

Operator = Callable[..., Any]
Batching = Callable[..., tuple[Any, Any]]


def define(
    schema: str, kernel: Operator, fake: Operator,
    *, backward: Callable[..., Any], saved: Callable[[tuple[Any, ...], Any], tuple[Tensor, ...]],
    batching: Callable[[Operator], Batching] | None = None, constants: int = 0,
) -> Operator:  # fmt: skip
    """Register `name(...) -> ...` and return it, differentiable.

    Args:
        kernel, fake: what computes it, and what its answer looks like.
        backward: its vector-Jacobian product, `(ctx, *cotangents)`; `ctx.numbers` are its arguments that are
            no tensors.
        saved: of the arguments and the answer, the tensors that `backward` reads as `ctx.saved_tensors`.
        batching: the rule for `vmap`, if it is not that a batch is more groups.
        constants: of the answers, the last so many have no derivative.
    """
    name = schema.split("(")[0]
    _library.define(schema)
    _library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_library)
    plain = getattr(torch.ops.metalearn_benchmarks, name)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*saved(inputs, output))
        ctx.numbers = [x for x in inputs if not isinstance(x, Tensor)]
        if constants:
            ctx.mark_non_differentiable(*output[-constants:])

    def applied(*arguments: Any) -> Any:
        # outside a transform without torch's preparations for one, which take longer than a small convolution
        transformed = torch._C._are_functorch_transforms_active()
        return (within if transformed else plain_function).apply(*arguments)  # type: ignore[attr-defined]

    def kept(ctx: Any, *arguments: Any) -> Any:
        answer = plain(*arguments)
        keep(ctx, arguments, answer)
        return answer

    parts = {
        "forward": staticmethod(lambda *arguments: plain(*arguments)),
        "setup_context": staticmethod(keep),
        "backward": staticmethod(backward),
        "vmap": staticmethod((batching or more_groups)(applied)),
    }
    within = type(name, (torch.autograd.Function,), parts)
    alone = {"forward": staticmethod(kept), "backward": staticmethod(backward)}
    plain_function = type(name, (torch.autograd.Function,), alone)
    return applied


def leading(x: Tensor, dim: int | None, size: int) -> Tensor:
    """A batch's axis and the groups' as one; what is shared is repeated."""
    moved = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return moved.flatten(0, 1)


def parted(x: Tensor, size: int) -> Tensor:
    """The way back from `leading`."""
    return x.reshape(size, -1, *x.shape[1:])


def more_groups(operator: Operator) -> Batching:
    """The rule for `vmap` by which a batch is more groups."""

    def batched(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        size, given = info.batch_size, zip(arguments, dims, strict=True)
        answers = operator(*(leading(x, dim, size) if isinstance(x, Tensor) else x for x, dim in given))
        if isinstance(answers, Tensor):
            return parted(answers, size), 0
        return tuple(parted(x, size) for x in answers), (0,) * len(answers)

    return batched
