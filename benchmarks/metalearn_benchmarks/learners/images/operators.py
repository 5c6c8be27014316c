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


def define_operator(
    schema: str, kernel: Operator, fake: Operator,
    *, backward: Callable[..., Any], saved: Callable[[tuple[Any, ...], Any], tuple[Tensor, ...]],
    batching: Callable[[Operator], Batching] | None = None, constants: int = 0,
) -> Operator:  # fmt: skip
    """Register an operator of torch, and return it as a differentiable function.

    Args:
        schema: Its signature, `name(...) -> ...`.
        kernel: Computes it.
        fake: Returns an empty tensor of the shape of its result.
        backward: Its vector-Jacobian product, `(ctx, *cotangents)`. `ctx.numbers` are the arguments that are
            no tensors.
        saved: Chooses, of the arguments and the result, the tensors that `backward` reads as
            `ctx.saved_tensors`.
        batching: The rule for `vmap`, where it is not that a batch is more groups.
        constants: How many of the last results have no derivative.
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
        "vmap": staticmethod((batching or batch_as_groups)(applied)),
    }
    within = type(name, (torch.autograd.Function,), parts)
    alone = {"forward": staticmethod(kept), "backward": staticmethod(backward)}
    plain_function = type(name, (torch.autograd.Function,), alone)
    return applied


def fold_batch(x: Tensor, dim: int | None, size: int) -> Tensor:
    """Fold the axis of a batch into the axis of groups. A tensor that the batch shares is repeated."""
    moved = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return moved.flatten(0, 1)


def unfold_batch(x: Tensor, size: int) -> Tensor:
    """Undo `fold_batch`."""
    return x.reshape(size, -1, *x.shape[1:])


def batch_as_groups(operator: Operator) -> Batching:
    """Make the rule for `vmap` by which a batch is more groups."""

    def batched(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        size, given = info.batch_size, zip(arguments, dims, strict=True)
        answers = operator(*(fold_batch(x, dim, size) if isinstance(x, Tensor) else x for x, dim in given))
        if isinstance(answers, Tensor):
            return unfold_batch(answers, size), 0
        return tuple(unfold_batch(x, size) for x in answers), (0,) * len(answers)

    return batched
