"""Building blocks of rules that evaluate one tiny network for every coordinate of θ.

In eager code they are plain layers of torch. While a meta-step is compiled they become one operator each,
which keeps a block of coordinates in cache (`metalearn_core.kernels.operators`). The numbers are the same to
rounding, the first derivative too; a rule that asks for a second one of its network is not compiled.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise

import torch
from torch import Tensor, nn

import metalearn_core.kernels.operators as operators
from metalearn_core.errors import require_count, require_kinds

_FUSING: ContextVar[bool] = ContextVar("_FUSING", default=False)
WIDEST = {"cpu": 128, "cuda": 32}
"""Layers wider than this are left to matrix products: on a CPU these are good at them, and the registers of a
GPU hold no more."""


@contextmanager
def fused_networks() -> Iterator[None]:
    """Within it, the building blocks call the fused operators where there is one for the device."""
    token = _FUSING.set(True)
    try:
        yield
    finally:
        _FUSING.reset(token)


def _can_be_fused(x: Tensor, *widths: int) -> bool:
    device = x.device.type
    if not _FUSING.get() or max(widths) > WIDEST.get(device, 0):
        return False
    return x.dtype in (torch.float32, torch.float64) and (device == "cpu" or _has_triton())


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


class Coordinatewise(nn.Sequential):
    """One feed-forward network that is applied to every coordinate of θ by itself.

    It takes columns of numbers and returns columns of numbers. Its layers are `nn.Linear`s, with weights as
    torch draws them and biases 0. A learned optimiser of this kind is that of Metz et al. (2019).

    Args:
        columns: the number of inputs of a coordinate.
        hidden: the widths of the hidden layers; without any the network is a linear map.
        outputs: the number of outputs of a coordinate.
        activation: a module class, put after each hidden layer. ReLU, Tanh, Sigmoid and ELU are fused where
            a meta-step is compiled.

    Example:
        >>> import torch
        >>> from metalearn_core import Coordinatewise
        >>> network = Coordinatewise(columns=2, hidden=[8], outputs=1)
        >>> theta, grad = torch.zeros(5), torch.ones(5)
        >>> (update,) = network([theta, grad])
        >>> update.shape
        torch.Size([5])
    """

    def __init__(
        self, columns: int, hidden: Sequence[int], outputs: int = 1, activation: type[nn.Module] = nn.ReLU
    ) -> None:
        require_kinds("Coordinatewise", hidden=(hidden, (list, tuple)), activation=(activation, type))
        for name, width in (("columns", columns), *(("hidden", w) for w in hidden), ("outputs", outputs)):
            require_count("Coordinatewise", name, width, 1)
        layers: list[nn.Module] = []
        for before, after in pairwise([columns, *hidden, outputs]):
            linear = nn.Linear(before, after)
            nn.init.zeros_(linear.bias)
            layers += [linear, activation()]
        super().__init__(*layers[:-1])
        self._widths = [columns, *hidden, outputs]
        self._activation = activation

    def forward(self, columns: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Columns, each `[..., n]`, to as many as there are outputs, each `[..., n]`."""
        if self._activation not in operators.ACTIVATIONS or not _can_be_fused(columns[0], *self._widths):
            plain = super().forward(torch.stack(list(columns), -1))  # type: ignore[no-untyped-call]
            return tuple(plain.unbind(-1))
        parameters = torch.cat([p.reshape(-1) for p in self.parameters()])
        x = _as_rows(torch.stack(list(columns), -2))
        kind = operators.ACTIVATIONS.index(self._activation)
        y: Tensor = torch.ops.metalearn.network(x, parameters.unsqueeze(0), self._widths, kind)
        return tuple(y.reshape(*columns[0].shape[:-1], *y.shape[2:]).unbind(-2))


def coordinatewise_cell(
    columns: Sequence[Tensor], h: Tensor, c: Tensor, weight: Tensor, bias: Tensor, readout: Tensor
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Apply one LSTM cell to every coordinate of θ by itself, and read its output linearly.

    c′ = σ(f)⊙c + σ(i)⊙tanh(g), h′ = σ(o)⊙tanh(c′), [i, f, g, o] = weight·[columns, h] + bias
    (Hochreiter and Schmidhuber, 1997); the readouts are readout·h′. Andrychowicz et al. (2016) use the cell
    so.

    Args:
        columns: the inputs, each `[..., n]`.
        h: the hidden state, `[..., hidden, n]`.
        c: the cell state, `[..., hidden, n]`.
        weight: `[4 hidden, columns + hidden]`.
        bias: `[4 hidden]`.
        readout: `[outputs, hidden]`.

    Returns:
        The readouts, each `[..., n]`, then h′ and c′ in the shapes of h and c.

    Example:
        >>> import torch
        >>> from metalearn_core import coordinatewise_cell
        >>> h = c = torch.zeros(2, 5)  # two units for each of five coordinates
        >>> weight, bias, readout = torch.ones(8, 3), torch.zeros(8), torch.ones(1, 2)
        >>> (update,), h, c = coordinatewise_cell([torch.ones(5)], h, c, weight, bias, readout)
        >>> update.shape, h.shape
        (torch.Size([5]), torch.Size([2, 5]))
    """
    hidden, outputs = h.shape[-2], len(readout)
    x = torch.stack(list(columns), -2)
    if not _can_be_fused(x, len(columns), hidden, outputs):
        gates = weight @ torch.cat([x, h], -2) + bias.unsqueeze(-1)
        i, f, g, o = gates.chunk(4, -2)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (readout @ h).unbind(-2), h, c
    parts = (weight.reshape(-1), bias, readout.reshape(-1), readout.new_zeros(outputs))
    rows = (_as_rows(part) for part in (x, h, c))
    answers = torch.ops.metalearn.cell(*rows, torch.cat(parts).unsqueeze(0), outputs)
    y, h, c = (answer.reshape(*x.shape[:-2], *answer.shape[2:]) for answer in answers)
    return y.unbind(-2), h, c


def _as_rows(x: Tensor) -> Tensor:
    """`[..., d, n]` to the `[1, rows, d, n]` of one group."""
    return x.reshape(1, -1, *x.shape[-2:])
