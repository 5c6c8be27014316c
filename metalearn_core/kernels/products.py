"""Batches of small matrix products, one for each task and seed, while a meta-step is traced.

They are taken by `products.cpp`, compiled once on each machine, where it is first used, and kept on disk; and
turned where their result is wanted turned, as the gradient of a weight is.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from metalearn_core.kernels.sources import call, for_programs

aten = torch.ops.aten

_library: Any = torch.library.Library("metalearn", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("bmm(Tensor a, Tensor b) -> Tensor")


torch.library.register_fake(
    "metalearn::bmm", lambda a, b: a.new_empty(a.shape[0], a.shape[1], b.shape[2]), lib=_library
)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Outside of a compiled program."""
    c = a.new_empty(a.shape[0], a.shape[1], b.shape[2])
    call("products.cpp", "bmm", [*c.shape, a.shape[2], *a.stride(), *b.stride()], a, b, c)
    return c


_library.impl("bmm", _product, "CPU")

SMALL = 64**3
"""Multiplications of one product up to which it is taken here."""
FEW = 4
"""Batches of fewer products are left to torch: a call is then all that they cost."""
SHIM = "AOTITorchError aoti_torch_cpu_bmm(AtenTensorHandle a, AtenTensorHandle b, AtenTensorHandle* result)"
"""What a compiled program calls in the place of the operator."""


def load() -> None:
    """Compile the source, or find it compiled."""
    for_programs("products.cpp")


def arrange(graph: torch.fx.Graph) -> None:
    """Have each batch of products in a traced graph taken by whom, and in the layout, that suits it.

    The gradient of a weight is often found turned, and has to lie upright in θ: then the turned product is
    taken, since to copy it there, one number after the other, would take longer than the product.
    """
    for node in graph.find_nodes(op="call_function", target=aten.bmm.default):
        a, b = node.args
        ours = _is_ours(a.meta["val"], b.meta["val"])
        if ours:
            load()
        with graph.inserting_before(node):
            operator = torch.ops.metalearn.bmm.default if ours else aten.bmm.default
            if _ends_turned(node):
                factors = [graph.call_function(aten.transpose.int, (x, 1, 2)) for x in (b, a)]
                turned = graph.call_function(operator, tuple(factors))
                answer = graph.call_function(aten.transpose.int, (turned, 1, 2))
            else:
                answer = graph.call_function(operator, (a, b))
        node.replace_all_uses_with(answer)
        answer.meta.update(node.meta)
        graph.erase_node(node)


def _is_ours(a: Tensor, b: Tensor) -> bool:
    """Whether `[batch, m, k]` times `[batch, k, n]` is for the operator of this file."""
    sizes = (a.shape[1], a.shape[2], b.shape[2])
    kind = a.dtype in (torch.float32, torch.float64) and a.device.type == "cpu"
    # a product with a side of 1 is a sum of products, which Inductor fuses with what surrounds it
    return kind and min(sizes) > 1 and math.prod(sizes) <= SMALL and len(a) >= FEW


_POINTWISE = (aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor, aten.neg.default, aten.clone.default)
_VIEWS = (aten.view.default, aten._unsafe_view.default)


def _ends_turned(node: torch.fx.Node) -> bool:
    """Whether what is computed from a matrix, and nothing else, comes to lie flat in its turned order."""
    turned, now = False, node.meta["val"]
    sides = now.shape[-2:]
    while min(sides) > 1 and len(node.users) == 1:
        before, (node,) = now, node.users
        now = node.meta["val"]
        if node.target is aten.transpose.int and {d % before.ndim for d in node.args[1:]} == {
            before.ndim - 2, before.ndim - 1,
        }:  # fmt: skip
            turned, sides = not turned, sides[::-1]
        elif node.target in _VIEWS and now.shape[-1] == math.prod(sides):
            return turned
        elif node.target not in (*_VIEWS, *_POINTWISE) or now.shape[-2:] != sides:
            return False
    return False
