"""Tiny networks on very many scalars as operators of torch: fused, vector-Jacobian product included.

An update rule's network is evaluated for every coordinate of θ, of every task, and of every seed: through
matrix products that is bound by memory. These operators keep a block of coordinates in cache through all
layers, and compute activations again for the backward pass instead of storing them; a network of ReLUs that
reads one number is evaluated once for each of its linear segments (`segments.h`). For CPUs the source is
`coordinatewise.cpp`, compiled once on each machine, where it is first used, and kept on disk; for GPUs it is
`coordinatewise_triton.py`, which has run in Triton's interpreter only.

Shapes: inputs `[groups, rows, d, n]`, parameters `[groups, P]`; a group is a seed, a row is a task.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metalearn_core.kernels.products import SHIM
from metalearn_core.kernels.sources import Shims, call, for_programs

ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ELU)
"""What the fused network can do between its layers, in the order of the source's enumeration."""

_library: Any = torch.library.Library("metalearn", "DEF")  # type: ignore[no-untyped-call]
for _schema in (
    "network(Tensor x, Tensor parameters, int[] widths, int activation) -> Tensor",
    "network_vjp(Tensor x, Tensor parameters, Tensor cotangent, int[] widths, int activation)"
    " -> (Tensor, Tensor)",
    "cell(Tensor x, Tensor h, Tensor c, Tensor parameters, int outputs) -> (Tensor, Tensor, Tensor)",
    "cell_vjp(Tensor x, Tensor h, Tensor c, Tensor parameters, Tensor dy, Tensor dh, Tensor dc)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
):
    _library.define(_schema)

ROW = 256
"""Rows of fewer coordinates than this are laid end to end, or most of a block would be padding."""


def _joined(x: Tensor) -> Tensor:
    """`[groups, rows, d, n]` to `[groups, 1, d, rows · n]`."""
    return x.transpose(1, 2).reshape(x.shape[0], 1, x.shape[2], -1)


def _parted(x: Tensor, rows: int) -> Tensor:
    """The way back from `_joined`."""
    return x.reshape(x.shape[0], x.shape[2], rows, -1).transpose(1, 2).contiguous()


def _on_long_rows(kernel: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
    """The kernel with contiguous arguments and, where rows are short, with all of them in one.

    Tensors of four axes are of coordinates; what else comes back is a gradient of parameters.
    """

    @functools.wraps(kernel)
    def on_any(*arguments: Any) -> Any:
        rows, n = arguments[0].shape[1], arguments[0].shape[3]
        short = rows > 1 and n < ROW

        def laid(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return (_joined(x) if short and x.ndim == 4 else x).contiguous()

        answers = kernel(*map(laid, arguments))
        back = tuple(_parted(x, rows) if short and x.ndim == 4 else x for x in answers)
        return back if len(back) > 1 else back[0]

    return on_any


def _with_features(x: Tensor, count: int) -> Tensor:
    return x.new_empty(*x.shape[:2], count, x.shape[3])


def _sizes(x: Tensor) -> list[int]:
    groups, rows, _, n = x.shape
    return [groups, rows, n, torch.get_num_threads()]


@_on_long_rows
def _network(x: Tensor, parameters: Tensor, widths: list[int], activation: int) -> tuple[Tensor]:
    y = _with_features(x, widths[-1])
    call(
        "coordinatewise.cpp", "network", [*_sizes(x), activation, len(widths) - 1, *widths], x, parameters, y
    )
    return (y,)


@_on_long_rows
def _network_vjp(
    x: Tensor, parameters: Tensor, cotangent: Tensor, widths: list[int], activation: int
) -> tuple[Tensor, Tensor]:
    grads = torch.empty_like(x), torch.empty_like(parameters)
    shape = [*_sizes(x), activation, len(widths) - 1, *widths]
    call("coordinatewise.cpp", "network_vjp", shape, x, parameters, cotangent, *grads)
    return grads


@_on_long_rows
def _cell(x: Tensor, h: Tensor, c: Tensor, parameters: Tensor, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    answers = _with_features(x, outputs), torch.empty_like(h), torch.empty_like(c)
    call(
        "coordinatewise.cpp",
        "cell",
        [*_sizes(x), x.shape[2], h.shape[2], outputs],
        x,
        h,
        c,
        parameters,
        *answers,
    )
    return answers


@_on_long_rows
def _cell_vjp(
    x: Tensor, h: Tensor, c: Tensor, parameters: Tensor, dy: Tensor, dh: Tensor, dc: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = torch.empty_like(x), torch.empty_like(h), torch.empty_like(c), torch.empty_like(parameters)
    shape = [*_sizes(x), x.shape[2], h.shape[2], dy.shape[2]]
    call("coordinatewise.cpp", "cell_vjp", shape, x, h, c, parameters, dy, dh, dc, *grads)
    return grads


for _name, _kernel in (
    ("network", _network), ("network_vjp", _network_vjp), ("cell", _cell), ("cell_vjp", _cell_vjp),
):  # fmt: skip
    _library.impl(_name, _kernel, "CPU")


def _on_gpu(name: str) -> Callable[..., Any]:
    """The kernel of this name in `coordinatewise_gpu`, imported when it is first called."""

    def on_gpu(*arguments: Any) -> Any:
        kernels = importlib.import_module("metalearn_core.kernels.coordinatewise_gpu")
        given = (x.contiguous() if isinstance(x, Tensor) else x for x in arguments)
        return getattr(kernels, name)(*given)

    return on_gpu


for _name in ("network", "network_vjp", "cell", "cell_vjp"):
    _library.impl(_name, _on_gpu(_name), "CUDA")


def _like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in tensors)


_fakes: dict[str, Callable[..., Any]] = {
    "network": lambda x, parameters, widths, activation: _with_features(x, widths[-1]),
    "network_vjp": lambda x, parameters, cotangent, widths, activation: _like(x, parameters),
    "cell": lambda x, h, c, parameters, outputs: (_with_features(x, outputs), *_like(h, c)),
    "cell_vjp": lambda x, h, c, parameters, *cotangents: _like(x, h, c, parameters),
}
for _name, _fake in _fakes.items():
    torch.library.register_fake(f"metalearn::{_name}", _fake, lib=_library)


def _save(names: int, *rest: str) -> Callable[..., None]:
    """Keeps the first `names` arguments for the backward pass, the others under the names `rest`."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:names])
        for name, value in zip(rest, inputs[names:], strict=True):
            setattr(ctx, name, value)

    return setup


def _network_backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    vjp = torch.ops.metalearn.network_vjp(*ctx.saved_tensors, cotangent, ctx.widths, ctx.activation)
    return (*vjp, None, None)


def _cell_backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.ops.metalearn.cell_vjp(*ctx.saved_tensors, dy, dh, dc), None)


def _second(ctx: Any, *cotangents: Tensor) -> None:
    raise NotImplementedError("a fused coordinatewise network has a first derivative only")


_autograd = functools.partial(torch.library.register_autograd, lib=_library)
_autograd("metalearn::network", _network_backward, setup_context=_save(2, "widths", "activation"))
_autograd("metalearn::network_vjp", _second, setup_context=_save(0, *"xpcwa"))
_autograd("metalearn::cell", _cell_backward, setup_context=_save(4, "outputs"))
_autograd("metalearn::cell_vjp", _second, setup_context=_save(0, *"xhcpyst"))


def _batching(name: str, parameters: int) -> Callable[..., Any]:
    """The rule for `vmap`: a batch with parameters of its own is groups, one with shared ones is rows.

    `parameters`: which argument they are.
    """
    operator = getattr(torch.ops.metalearn, name)

    def batched(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> Any:
        size, own = info.batch_size, dims[parameters]
        groups = arguments[parameters].movedim(own or 0, 0).shape[0 if own is None else 1]
        shared = own is None and groups == 1 and not name.endswith("vjp")

        def leading(x: Any, dim: int | None) -> Any:
            if not isinstance(x, Tensor):
                return x
            moved = x.unsqueeze(0).expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
            return moved.reshape(1, -1, *moved.shape[3:]) if shared else moved.flatten(0, 1)

        given = [
            x if shared and i == parameters else leading(x, dim)
            for i, (x, dim) in enumerate(zip(arguments, dims, strict=True))
        ]
        answers = operator(*given)
        single = isinstance(answers, Tensor)
        parts = [
            x.reshape(size, 1, -1, *x.shape[2:]) if shared else x.unflatten(0, (size, groups))
            for x in ([answers] if single else answers)
        ]
        return (parts[0], 0) if single else (tuple(parts), (0,) * len(parts))

    return batched


for _name, _parameters in (("network", 1), ("network_vjp", 1), ("cell", 3), ("cell_vjp", 3)):
    torch.library.register_vmap(f"metalearn::{_name}", _batching(_name, _parameters), lib=_library)

_INPUTS = {
    "network": ("x p", "const int64_t* widths, int64_t count, int64_t activation", "y"),
    "network_vjp": ("x p d", "const int64_t* widths, int64_t count, int64_t activation", "gx gp"),
    "cell": ("x h c p", "int64_t outputs", "y hn cn"),
    "cell_vjp": ("x h c p dy dh dc", "", "gx gh gc gp"),
}
"""What each function of `direct_calls.h` takes: tensors, numbers, and where its answers go."""


def shims(graph: torch.fx.Graph) -> Shims:
    """What programs of a traced graph call themselves, not through Python: small products, and networks.

    Networks are left to `_on_long_rows` where some of their rows are short.
    """
    found = Shims({torch.ops.metalearn.bmm.default: [SHIM]})
    named = {getattr(torch.ops.metalearn, name).default: name for name in _INPUTS}
    nodes = [node for node in graph.nodes if node.op == "call_function" and node.target in named]
    shapes = [node.args[0].meta["val"].shape for node in nodes]
    if not nodes or any(rows > 1 and n < ROW for _, rows, _, n in shapes):
        return found
    for_programs("coordinatewise.cpp")
    return Shims({**found, **{operator: [_declaration(named[operator])] for operator in named}})


def _declaration(name: str) -> str:
    tensors, numbers, answers = _INPUTS[name]
    given = [f"AtenTensorHandle {x}" for x in tensors.split()] + [numbers] * bool(numbers)
    back = [f"AtenTensorHandle* {x}" for x in answers.split()]
    return f"AOTITorchError aoti_torch_cpu_{name}({', '.join([*given, *back])})"
