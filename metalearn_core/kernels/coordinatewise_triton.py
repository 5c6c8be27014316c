"""The fused networks of `operators` for GPUs: a block of coordinates stays in registers through all layers.

The same layout as in `coordinatewise.cpp`: features are rows of a matrix, coordinates its columns, and the
activations that the backward pass needs are computed again. A program takes one block of one group's
coordinates; it writes its own part of the parameters' gradient, and the parts are added in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    # exp alone would lose a small x's digits; the polynomial is Cephes' tanhf (Moshier), for float32 only.
    e = tl.exp(-2 * tl.abs(x))
    far = tl.where(x < 0, e - 1, 1 - e) / (1 + e)
    if x.dtype != tl.float32:
        return far
    z = x * x
    p = -5.70498872745e-3 * z + 2.06390887954e-2
    p = (p * z - 5.37397155531e-2) * z + 1.33314422036e-1
    return tl.where(tl.abs(x) < 0.625, x + x * z * (p * z - 3.33332819422e-1), far)


@triton.jit
def _sigmoid(x):
    e = tl.exp(-tl.abs(x))  # of no positive number: nothing overflows
    return tl.where(x < 0, e, 1.0) / (1 + e)


@triton.jit
def _activated(x, KIND: tl.constexpr):
    """In the order of `operators.ACTIVATIONS`."""
    if KIND == 0:
        return tl.where(x <= 0, 0.0, x)
    elif KIND == 1:
        return _tanh(x)
    elif KIND == 2:
        return _sigmoid(x)
    else:
        t = _tanh(tl.where(x > 0, 0.0, x) / 2)
        return tl.where(x > 0, x, 2 * t / (1 - t))  # exp(x) - 1, and a small x keeps its digits


@triton.jit
def _slope(y, KIND: tl.constexpr):
    """The activation's derivative, of what it returned."""
    if KIND == 0:
        return tl.where(y > 0, 1.0, 0.0)
    elif KIND == 1:
        return 1 - y * y
    elif KIND == 2:
        return y * (1 - y)
    else:
        return tl.where(y > 0, 1.0, y + 1)


@triton.jit
def _columns(n, rows, BLOCK: tl.constexpr):
    """The rows that this program's coordinates stand in, their places there, and which of them there are."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return tl.program_id(1) * rows + at // n, at % n, at < rows * n


@triton.jit
def _places(row, column, n, COUNT: tl.constexpr, SIDE: tl.constexpr):
    """Where features stand in a tensor `[groups · rows, COUNT, n]`, and which of them there are."""
    feature = tl.arange(0, SIDE)[:, None]
    return (row[None, :] * COUNT + feature) * n + column[None, :], feature < COUNT


@triton.jit
def _read(x, row, column, used, n, COUNT: tl.constexpr, SIDE: tl.constexpr):
    at, feature = _places(row, column, n, COUNT, SIDE)
    return tl.load(x + at, feature & used[None, :], 0.0)


@triton.jit
def _write(x, value, row, column, used, n, COUNT: tl.constexpr, SIDE: tl.constexpr):
    at, feature = _places(row, column, n, COUNT, SIDE)
    tl.store(x + at, value, feature & used[None, :])


@triton.jit
def _weight(p, outs, ins, stride, SIDE: tl.constexpr):
    """`[outs, ins]` with zeros up to `[SIDE, SIDE]`."""
    i, j = tl.arange(0, SIDE)[:, None], tl.arange(0, SIDE)[None, :]
    return tl.load(p + i * stride + j, (i < outs) & (j < ins), 0.0)


@triton.jit
def _affine(p, bias, a, outs, ins, stride, SIDE: tl.constexpr):
    i = tl.arange(0, SIDE)
    b = tl.load(bias + i, i < outs, 0.0)
    return _product(_weight(p, outs, ins, stride, SIDE), a) + b[:, None]


@triton.jit
def _product(a, b):
    # Three products of TensorFloat-32 are about as exact as one of float32; plain float32 would spill.
    return tl.dot(a, b, input_precision="tf32x3", out_dtype=a.dtype)


@triton.jit
def _outer(total, delta, a, outs, ins, stride, SIDE: tl.constexpr):
    """A weight's gradient, delta·aᵀ."""
    i, j = tl.arange(0, SIDE)[:, None], tl.arange(0, SIDE)[None, :]
    tl.store(total + i * stride + j, _product(delta, tl.trans(a)), (i < outs) & (j < ins))


@triton.jit
def _sum(total, delta, outs, SIDE: tl.constexpr):
    """A bias's gradient."""
    i = tl.arange(0, SIDE)
    tl.store(total + i, tl.sum(delta, 1), i < outs)


@triton.jit
def _layer(p, a, INS: tl.constexpr, OUTS: tl.constexpr, SIDE: tl.constexpr):
    return _affine(p, p + INS * OUTS, a, OUTS, INS, INS, SIDE)


@triton.jit
def _layer_vjp(p, total, delta, a, INS: tl.constexpr, OUTS: tl.constexpr, SIDE: tl.constexpr):
    """The cotangent of the layer's input a, from its output's; its parameters' gradient goes to `total`."""
    _outer(total, delta, a, OUTS, INS, INS, SIDE)
    _sum(total + INS * OUTS, delta, OUTS, SIDE)
    return _product(tl.trans(_weight(p, OUTS, INS, INS, SIDE)), delta)


@triton.jit
def network_kernel(
    x, parameters, y, rows, n,
    WIDTHS: tl.constexpr, KIND: tl.constexpr, P: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A block of coordinates through y = W_L·act(… act(W_1·x + b_1) …) + b_L."""
    LAYERS: tl.constexpr = len(WIDTHS) - 1
    row, column, used = _columns(n, rows, BLOCK)
    p = parameters + tl.program_id(1) * P
    a = _read(x, row, column, used, n, WIDTHS[0], SIDE)
    for layer in tl.static_range(LAYERS):
        a = _layer(p, a, WIDTHS[layer], WIDTHS[layer + 1], SIDE)
        if layer + 1 < LAYERS:
            a = _activated(a, KIND)
        p += (WIDTHS[layer] + 1) * WIDTHS[layer + 1]
    _write(y, a, row, column, used, n, WIDTHS[LAYERS], SIDE)


@triton.jit
def network_vjp_kernel(
    x, parameters, cotangent, grad_x, parts, rows, n,
    WIDTHS: tl.constexpr, KIND: tl.constexpr, P: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The cotangent of x, and this block's part of that of the parameters."""
    LAYERS: tl.constexpr = len(WIDTHS) - 1
    row, column, used = _columns(n, rows, BLOCK)
    p = parameters + tl.program_id(1) * P
    inputs = (_read(x, row, column, used, n, WIDTHS[0], SIDE),)
    at = 0
    for layer in tl.static_range(LAYERS - 1):
        a = _layer(p + at, inputs[layer], WIDTHS[layer], WIDTHS[layer + 1], SIDE)
        inputs = inputs + (_activated(a, KIND),)  # type: ignore[assignment]
        at += (WIDTHS[layer] + 1) * WIDTHS[layer + 1]
    total = parts + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * P
    delta = _read(cotangent, row, column, used, n, WIDTHS[LAYERS], SIDE)
    for layer in tl.static_range(LAYERS - 1, -1, -1):
        delta = _layer_vjp(p + at, total + at, delta, inputs[layer], WIDTHS[layer], WIDTHS[layer + 1], SIDE)
        if layer > 0:
            delta *= _slope(inputs[layer], KIND)
            at -= (WIDTHS[layer - 1] + 1) * WIDTHS[layer]
    _write(grad_x, delta, row, column, used, n, WIDTHS[0], SIDE)


@triton.jit
def _gate(p, x, h, GATE: tl.constexpr, INS: tl.constexpr, HIDDEN: tl.constexpr, SIDE: tl.constexpr):
    """One gate before its activation: W·[x, h] + b."""
    JOINED: tl.constexpr = INS + HIDDEN
    w = p + GATE * HIDDEN * JOINED
    bias = p + 4 * HIDDEN * JOINED + GATE * HIDDEN
    return _affine(w, bias, x, HIDDEN, INS, JOINED, SIDE) + _product(
        _weight(w + INS, HIDDEN, HIDDEN, JOINED, SIDE), h
    )


@triton.jit
def _gates(p, x, h, INS: tl.constexpr, HIDDEN: tl.constexpr, SIDE: tl.constexpr):
    """The input gate, the forget gate, the candidate and the output gate."""
    i = _sigmoid(_gate(p, x, h, 0, INS, HIDDEN, SIDE))
    f = _sigmoid(_gate(p, x, h, 1, INS, HIDDEN, SIDE))
    g = _tanh(_gate(p, x, h, 2, INS, HIDDEN, SIDE))
    return i, f, g, _sigmoid(_gate(p, x, h, 3, INS, HIDDEN, SIDE))


@triton.jit
def _gate_vjp(
    p, total, d, x, h, GATE: tl.constexpr, INS: tl.constexpr, HIDDEN: tl.constexpr, SIDE: tl.constexpr
):
    """The cotangents of x and h from one gate's, whose weights' gradient goes to `total`."""
    JOINED: tl.constexpr = INS + HIDDEN
    start: tl.constexpr = GATE * HIDDEN * JOINED
    _outer(total + start, d, x, HIDDEN, INS, JOINED, SIDE)
    _outer(total + start + INS, d, h, HIDDEN, HIDDEN, JOINED, SIDE)
    _sum(total + 4 * HIDDEN * JOINED + GATE * HIDDEN, d, HIDDEN, SIDE)
    of_x = _product(tl.trans(_weight(p + start, HIDDEN, INS, JOINED, SIDE)), d)
    return of_x, _product(tl.trans(_weight(p + start + INS, HIDDEN, HIDDEN, JOINED, SIDE)), d)


@triton.jit
def cell_kernel(
    x, h, c, parameters, y, h_next, c_next, rows, n,
    INS: tl.constexpr, HIDDEN: tl.constexpr, OUTS: tl.constexpr, P: tl.constexpr,
    SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """c′ = σ(f)⊙c + σ(i)⊙tanh(g), h′ = σ(o)⊙tanh(c′), y = readout·h′."""
    row, column, used = _columns(n, rows, BLOCK)
    p = parameters + tl.program_id(1) * P
    ins = _read(x, row, column, used, n, INS, SIDE)
    before = _read(h, row, column, used, n, HIDDEN, SIDE)
    i, f, g, o = _gates(p, ins, before, INS, HIDDEN, SIDE)
    now = f * _read(c, row, column, used, n, HIDDEN, SIDE) + i * g
    out = o * _tanh(now)
    _write(h_next, out, row, column, used, n, HIDDEN, SIDE)
    _write(c_next, now, row, column, used, n, HIDDEN, SIDE)
    readout = p + 4 * HIDDEN * (INS + HIDDEN + 1)
    read = _affine(readout, readout + OUTS * HIDDEN, out, OUTS, HIDDEN, HIDDEN, SIDE)
    _write(y, read, row, column, used, n, OUTS, SIDE)


@triton.jit
def cell_vjp_kernel(
    x, h, c, parameters, dy, dh, dc, grad_x, grad_h, grad_c, parts, rows, n,
    INS: tl.constexpr, HIDDEN: tl.constexpr, OUTS: tl.constexpr, P: tl.constexpr,
    SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The cotangents of x, h and c, and this block's part of that of the parameters."""
    row, column, used = _columns(n, rows, BLOCK)
    p = parameters + tl.program_id(1) * P
    total = parts + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * P
    ins = _read(x, row, column, used, n, INS, SIDE)
    before = _read(h, row, column, used, n, HIDDEN, SIDE)
    cell = _read(c, row, column, used, n, HIDDEN, SIDE)
    i, f, g, o = _gates(p, ins, before, INS, HIDDEN, SIDE)
    seen = _tanh(f * cell + i * g)

    START: tl.constexpr = 4 * HIDDEN * (INS + HIDDEN + 1)
    d_out = _read(dy, row, column, used, n, OUTS, SIDE)
    _outer(total + START, d_out, o * seen, OUTS, HIDDEN, HIDDEN, SIDE)
    _sum(total + START + OUTS * HIDDEN, d_out, OUTS, SIDE)
    d = _read(dh, row, column, used, n, HIDDEN, SIDE)
    d += _product(tl.trans(_weight(p + START, OUTS, HIDDEN, HIDDEN, SIDE)), d_out)
    d_cell = _read(dc, row, column, used, n, HIDDEN, SIDE) + d * o * (1 - seen * seen)
    _write(grad_c, d_cell * f, row, column, used, n, HIDDEN, SIDE)

    of_x, of_h = _gate_vjp(p, total, d_cell * g * i * (1 - i), ins, before, 0, INS, HIDDEN, SIDE)
    x_too, h_too = _gate_vjp(p, total, d_cell * cell * f * (1 - f), ins, before, 1, INS, HIDDEN, SIDE)
    of_x, of_h = of_x + x_too, of_h + h_too
    x_too, h_too = _gate_vjp(p, total, d_cell * i * (1 - g * g), ins, before, 2, INS, HIDDEN, SIDE)
    of_x, of_h = of_x + x_too, of_h + h_too
    x_too, h_too = _gate_vjp(p, total, d * seen * o * (1 - o), ins, before, 3, INS, HIDDEN, SIDE)
    _write(grad_x, of_x + x_too, row, column, used, n, INS, SIDE)
    _write(grad_h, of_h + h_too, row, column, used, n, HIDDEN, SIDE)
