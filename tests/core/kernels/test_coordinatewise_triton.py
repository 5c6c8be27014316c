"""The kernels for GPUs, in Triton's interpreter: the plain networks to rounding. And they compile for a GPU.

Triton decides when it is imported whether it interprets, so these tests have an environment of their own.
"""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metalearn_core import Coordinatewise, coordinatewise_cell
from metalearn_core.kernels.operators import ACTIVATIONS

pytest.importorskip("triton", reason="needs triton, which is not installed: tox run -e triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1: tox run -e triton", allow_module_level=True)

from metalearn_core.kernels import coordinatewise_gpu as kernels

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}
dtypes = st.sampled_from(sorted(TOLERANCE, key=str))
shapes = st.sampled_from([(1, 1, 1), (1, 2, 5), (2, 1, 64), (2, 3, 37), (1, 1, 130)])
"""Groups, rows, n: less than a block, one of them, blocks over several rows, a part of the last one."""


def agree(ours, theirs, tolerance):
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max().item() <= tolerance * max(1, other.abs().max().item())


def plain_network(x, parameters, widths, activation):
    """Every group by itself, through the layers of torch."""
    groups = []
    for group, row in zip(x, parameters, strict=True):
        network = Coordinatewise(widths[0], widths[1:-1], widths[-1], activation).to(x.dtype)
        sizes = [p.numel() for p in network.parameters()]
        parts = [part.view_as(p) for part, p in zip(row.split(sizes), network.parameters(), strict=True)]
        named = dict(zip(dict(network.named_parameters()), parts, strict=True))
        columns = torch.func.functional_call(network, named, (group.unbind(-2),))
        groups.append(torch.stack(columns, -2))
    return torch.stack(groups)


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    activation=st.sampled_from(ACTIVATIONS),
    shape=shapes,
    dtype=dtypes,
    seed=st.integers(0, 99),
)
def test_the_network_is_the_plain_one(widths, activation, shape, dtype, seed):
    # rounding can move a number over the corner of a ReLU
    dtype = torch.float64 if activation is nn.ReLU else dtype
    generator = torch.Generator().manual_seed(seed)
    (groups, rows, n), size = shape, sum((a + 1) * b for a, b in pairwise(widths))
    x = torch.randn(groups, rows, widths[0], n, generator=generator).to(dtype).requires_grad_()
    parameters = (torch.randn(groups, size, generator=generator) * 0.5).to(dtype).requires_grad_()
    cotangent = torch.randn(groups, rows, widths[-1], n, generator=generator).to(dtype)
    plain = plain_network(x, parameters, widths, activation)
    grads = torch.autograd.grad(plain, [x, parameters], cotangent)
    kind = ACTIVATIONS.index(activation)
    with torch.no_grad():
        ours = kernels.network(x, parameters, widths, kind)
        vjp = kernels.network_vjp(x, parameters, cotangent, widths, kind)
    agree([ours], [plain], TOLERANCE[dtype] * len(widths))
    agree(vjp, grads, TOLERANCE[dtype] * 10 * len(widths))


@settings(max_examples=25, deadline=None)
@given(
    columns=st.integers(1, 3),
    hidden=st.integers(1, 20),
    outputs=st.integers(1, 3),
    shape=shapes,
    dtype=dtypes,
    seed=st.integers(0, 99),
)
def test_the_cell_is_the_plain_one(columns, hidden, outputs, shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    groups, rows, n = shape

    def random(*size, scale=1.0):
        return (torch.randn(size, generator=generator) * scale).to(dtype).requires_grad_()

    x, h, c = (random(groups, rows, d, n) for d in (columns, hidden, hidden))
    sizes = [4 * hidden * (columns + hidden), 4 * hidden, outputs * hidden, outputs]
    parameters = random(groups, sum(sizes), scale=0.5)
    found = []
    for group, row in enumerate(parameters):
        weight, bias, readout, shift = row.split(sizes)
        given = weight.view(4 * hidden, -1), bias, readout.view(outputs, hidden)
        ys, *state = coordinatewise_cell(x[group].unbind(-2), h[group], c[group], *given)
        found.append((torch.stack(ys, -2) + shift.unsqueeze(-1), *state))
    plain = [torch.stack(parts) for parts in zip(*found, strict=True)]
    cotangents = [torch.randn(y.shape, generator=generator).to(dtype) for y in plain]
    grads = torch.autograd.grad(plain, [x, h, c, parameters], cotangents)
    with torch.no_grad():
        ours = kernels.cell(x, h, c, parameters, outputs)
        vjp = kernels.cell_vjp(x, h, c, parameters, *cotangents)
    agree(ours, plain, TOLERANCE[dtype])
    agree(vjp, grads, TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_not_a_number_stays_so(activation):
    x = torch.tensor([1.0, float("nan"), 2.0]).view(1, 1, 1, 3)
    parameters, kind = torch.rand(1, 10), ACTIVATIONS.index(activation)
    assert kernels.network(x, parameters, [1, 3, 1], kind).flatten().isnan().tolist() == [False, True, False]
    _, grads = kernels.network_vjp(x, parameters, torch.ones_like(x), [1, 3, 1], kind)
    assert grads[0, :3].isnan().all()


@pytest.mark.parametrize("value", [1e-6, 1e-3, 0.6, 0.63, 3.0, 30.0, 300.0])
def test_tanh_of_small_and_of_large_numbers(value):
    """A network that is the activation alone."""
    x = torch.tensor([value, -value]).view(1, 1, 1, 2)
    y = kernels.network(x, torch.tensor([[1.0, 0.0, 1.0, 0.0]]), [1, 1, 1], ACTIVATIONS.index(nn.Tanh))
    torch.testing.assert_close(y, torch.tanh(x), rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [1e-7, 1e-6, 1e-3, 0.6, 1.3, 30.0, 300.0])
def test_elu_of_small_and_of_large_numbers(value):
    x = torch.tensor([value, -value]).view(1, 1, 1, 2)
    y = kernels.network(x, torch.tensor([[1.0, 0.0, 1.0, 0.0]]), [1, 1, 1], ACTIVATIONS.index(nn.ELU))
    torch.testing.assert_close(y, nn.functional.elu(x), rtol=1e-6, atol=0)


COMPILED = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from metalearn_core.kernels import coordinatewise_gpu as kernels, coordinatewise_triton

FEED_FORWARD = {"WIDTHS": (1, 20, 20, 20, 20, 20, 1), "KIND": 0, "P": 1741}
LSTM = {"INS": 2, "HIDDEN": 20, "OUTS": 2, "P": 1882}
for name, constants in (
    ("network", FEED_FORWARD), ("network_vjp", FEED_FORWARD), ("cell", LSTM), ("cell_vjp", LSTM)
):
    kernel = getattr(coordinatewise_triton, name + "_kernel")
    constants = {**constants, "SIDE": 32, "BLOCK": kernels.BLOCK}
    integers = dict.fromkeys(("rows", "n"), "i32")
    known = {**dict.fromkeys(constants, "constexpr"), **integers}
    signature = {a: known.get(a, "*" + sys.argv[1]) for a in kernel.arg_names}
    values = {(kernel.arg_names.index(a),): value for a, value in constants.items()}
    source, options = ASTSource(kernel, signature, values), {"num_warps": kernels.WARPS}
    found = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(name, len(found.asm["cubin"]) > 0)
"""


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_they_compile_for_a_gpu_that_is_not_here(dtype, tmp_path):
    """To machine code of compute capability 9.0; the interpreter accepts more than the compiler does."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", COMPILED, dtype], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:-1] == [
        f"{name} True" for name in ("network", "network_vjp", "cell", "cell_vjp")
    ]
