"""How this package's operators are registered: one axis of groups leads, and `vmap` makes more of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "metalearn_benchmarks"
library: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
operators = torch.ops.metalearn_benchmarks

Backward = Callable[..., tuple[Tensor | None, ...]]


def define(
    schema: str, kernel: Callable[..., Any], fake: Callable[..., Any], batched: Callable[..., Any] | None = None
) -> None:
    """Register an operator `name(...) -> ...`, what its answer looks like, and its rule for `vmap`.

    `batched`: the rule, if it is not that a batch is more groups.
    """
    name = schema.split("(")[0]
    library.define(schema)
    library.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=library)
    torch.library.register_vmap(f"{NAMESPACE}::{name}", batched or more_groups(name), lib=library)


def differentiate(name: str, backward: Backward, saved: Callable[[tuple[Any, ...], Any], tuple[Any, ...]]) -> None:
    """Register a vector-Jacobian product. `saved`: of inputs and output, the tensors that it needs."""

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*saved(inputs, output))
        ctx.numbers = [x for x in inputs if not isinstance(x, Tensor)]

    torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=keep, lib=library)


def leading(x: Tensor, dim: int | None, size: int) -> Tensor:
    """A batch's axis and the groups' as one; what is shared is repeated, without being copied."""
    moved = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return moved.flatten(0, 1)


def more_groups(name: str) -> Callable[..., Any]:
    """The rule for `vmap` by which a batch is more groups."""

    def batched(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> Any:
        size = info.batch_size
        given = (
            leading(x, dim, size) if isinstance(x, Tensor) else x for x, dim in zip(arguments, dims, strict=True)
        )
        answers = getattr(operators, name)(*given)
        if isinstance(answers, Tensor):
            return answers.unflatten(0, (size, -1)), 0
        return tuple(x.unflatten(0, (size, -1)) for x in answers), (0,) * len(answers)

    return batched
