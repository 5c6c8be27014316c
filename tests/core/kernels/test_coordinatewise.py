"""Fused networks: the plain ones to rounding, value and vector-Jacobian product, batched in every way."""

import itertools
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import vmap

from metalearn_core import Coordinatewise, coordinatewise_cell, make_rule, meta_gradient
from metalearn_core.kernels import operators
from metalearn_core.kernels.coordinatewise import fused_networks
from metalearn_core.testing import Architecture, Problem

if not shutil.which("g++"):
    pytest.skip("needs g++, a C++ compiler", allow_module_level=True)

SHAPES = [(1,), (70,), (2, 3, 17), (3, 1_100), (2, 260)]
"""Less than a vector, less than a block, rows laid end to end, rows cut in two, rows as they are."""


def furthest(ours, theirs):
    """The largest difference, as a part of the largest element of each tensor."""
    return max(
        float((a - b).abs().max() / (1e-300 + b.abs().max())) for a, b in zip(ours, theirs, strict=True)
    )


def random(generator, *shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()


def network_of(columns, hidden, outputs, activation, generator, dtype=torch.float64):
    network = Coordinatewise(columns, hidden, outputs, activation).to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(random(generator, *parameter.shape, dtype=dtype) * 0.6)
    return network


def answers(function, inputs, generator):
    """What the function returns, and the products of its Jacobian with drawn cotangents."""
    found = function()
    cotangents = [random(generator, *x.shape, dtype=x.dtype).detach() for x in found]
    return [x.detach() for x in (*found, *torch.autograd.grad(found, inputs, cotangents))]


def both_ways(function, inputs):
    """Fused, then plain, with the same cotangents."""
    with fused_networks():
        fused = answers(function, inputs, torch.Generator().manual_seed(7))
    return fused, answers(function, inputs, torch.Generator().manual_seed(7))


@settings(max_examples=60)
@given(
    columns=st.integers(1, 4),
    hidden=st.lists(st.integers(1, 24), max_size=3),
    outputs=st.integers(1, 6),
    activation=st.sampled_from(operators.ACTIVATIONS),
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 99),
)
def test_the_fused_network_is_the_plain_one(columns, hidden, outputs, activation, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    network = network_of(columns, hidden, outputs, activation, generator)
    inputs = [random(generator, *shape) for _ in range(columns)]
    fused, plain = both_ways(lambda: network(inputs), [*inputs, *network.parameters()])
    assert furthest(fused, plain) < 1e-11


def cell_and_inputs(columns, hidden, outputs, shape, generator, dtype=torch.float64, scale=1.0):
    wide = (*shape[:-1], hidden, shape[-1])
    inputs = [random(generator, *shape, dtype=dtype) for _ in range(columns)]
    rest = [
        random(generator, *size, dtype=dtype)
        for size in (wide, wide, (4 * hidden, columns + hidden), (4 * hidden,), (outputs, hidden))
    ]

    def cell():
        ys, h, c = coordinatewise_cell([scale * x for x in inputs], *rest)
        return [*ys, h, c]

    return cell, [*inputs, *rest]


@settings(max_examples=40)
@given(
    columns=st.integers(1, 3),
    hidden=st.integers(1, 22),
    outputs=st.integers(1, 3),
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 99),
)
def test_the_fused_cell_is_the_plain_one(columns, hidden, outputs, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    cell, inputs = cell_and_inputs(columns, hidden, outputs, shape, generator)
    fused, plain = both_ways(cell, inputs)
    assert furthest(fused, plain) < 1e-11


def test_derivatives_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    network = network_of(2, [5, 4], 2, nn.Tanh, generator)
    inputs = [random(generator, 3, 7) for _ in range(2)]
    cell, of_cell = cell_and_inputs(2, 3, 2, (9,), generator)
    with fused_networks():
        assert torch.autograd.gradcheck(lambda *_: network(inputs), (*inputs, *network.parameters()))
        assert torch.autograd.gradcheck(lambda *_: cell(), of_cell)


@pytest.mark.parametrize("activation", operators.ACTIVATIONS)
def test_in_float32_it_errs_as_the_plain_network_does(activation):
    generator = torch.Generator().manual_seed(1)
    exact = network_of(1, [20] * 5, 1, activation, generator)
    inputs = [random(generator, 3, 1_761)]
    _, truth = both_ways(lambda: exact(inputs), [*inputs, *exact.parameters()])
    single = network_of(1, [20] * 5, 1, activation, generator, torch.float32)
    single.load_state_dict(exact.state_dict())
    short = [x.detach().float().requires_grad_() for x in inputs]
    found = both_ways(lambda: single(short), [*short, *single.parameters()])
    fused, plain = (furthest([x.double() for x in way], truth) for way in found)
    assert 0 < fused <= 4 * max(plain, 1e-7)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0], ids=["small inputs", "inputs", "saturated gates"])
def test_the_cell_in_float32_errs_as_the_plain_one_does(scale):
    (_, truth), (fused, plain) = (
        both_ways(*cell_and_inputs(2, 20, 2, (3, 1_761), torch.Generator().manual_seed(2), dtype, scale))
        for dtype in (torch.float64, torch.float32)
    )
    fused, plain = (furthest([x.double() for x in way], truth) for way in (fused, plain))
    assert 0 < fused <= 4 * max(plain, 1e-7)


@pytest.mark.parametrize("size", [8.0, 8.3, 8.35, 9.5, 1e4, 1e6])
def test_a_saturated_unit_has_no_slope_that_a_large_input_could_multiply(size):
    """One unit, all weights 1: its weight's gradient is the input times the slope, 0 where tanh is 1."""
    network = network_of(1, [1], 1, nn.Tanh, torch.Generator().manual_seed(3), torch.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float(parameter.ndim > 1))
    x = torch.tensor([size, -size] * 20, requires_grad=True)
    fused, plain = both_ways(lambda: network([x]), [x, *network.parameters()])
    assert (fused[0] - plain[0]).abs().max() <= 2.4e-7  # four units of the last place below 1
    for ours, theirs in zip(fused[1:], plain[1:], strict=True):
        assert (ours - theirs).abs().max() <= 2e-5


@pytest.mark.parametrize("own", [True, False], ids=["own parameters", "shared parameters"])
def test_a_batch_of_networks_is_a_loop_over_them(own):
    """Seeds with parameters of their own; and tasks of one seed inside of that."""
    generator = torch.Generator().manual_seed(3)
    widths = [2, 4, 1]
    x, p = random(generator, 3, 2, 5, 2, 31), random(generator, *([3] if own else []), 1, 2 * 4 + 4 + 5)
    cotangent = random(generator, 3, 2, 5, 1, 31).detach()

    def network(x, p):
        inner = vmap(lambda x: torch.ops.metalearn.network(x.unsqueeze(0), p, widths, 1).squeeze(0))
        return inner(x)

    batched = vmap(network, in_dims=(0, 0 if own else None))(x, p)
    looped = torch.stack([network(x[i], p[i] if own else p) for i in range(3)])
    assert batched.shape == cotangent.shape
    ours, theirs = (torch.autograd.grad(y, [x, p], cotangent) for y in (batched, looped))
    assert furthest([batched.detach(), *ours], [looped.detach(), *theirs]) < 1e-12


@pytest.mark.parametrize("own", [True, False], ids=["own parameters", "shared parameters"])
def test_a_batch_of_cells_is_a_loop_over_them(own):
    generator = torch.Generator().manual_seed(4)
    x, h, c = (random(generator, 3, 5, d, 31) for d in (2, 4, 4))
    lead = [3] if own else []
    rest = [random(generator, *lead, *size) for size in ((16, 6), (16,), (2, 4))]

    def cell(x, h, c, *rest):
        with fused_networks():
            ys, h, c = coordinatewise_cell(x.unbind(-2), h, c, *rest)
        return torch.cat([torch.stack(ys, -2), h, c], -2)

    batched = vmap(cell, in_dims=(0, 0, 0, *([0 if own else None] * 3)))(x, h, c, *rest)
    looped = torch.stack([cell(x[i], h[i], c[i], *(r[i] if own else r for r in rest)) for i in range(3)])
    cotangent = random(generator, *batched.shape).detach()
    ours, theirs = (torch.autograd.grad(y, [x, h, c, *rest], cotangent) for y in (batched, looped))
    assert furthest([batched.detach(), *ours], [looped.detach(), *theirs]) < 1e-12


def test_vector_jacobian_products_can_be_batched_too():
    """Many cotangents at once, as for a Jacobian."""
    generator = torch.Generator().manual_seed(5)
    x, p = random(generator, 1, 2, 2, 31), random(generator, 1, 17)
    y = torch.ops.metalearn.network(x, p, [2, 4, 1], 0)
    cotangents = random(generator, 3, *y.shape).detach()
    batched = torch.autograd.grad(y, [x, p], cotangents, is_grads_batched=True, retain_graph=True)
    looped = zip(*(torch.autograd.grad(y, [x, p], c, retain_graph=True) for c in cotangents), strict=True)
    assert furthest(batched, [torch.stack(parts) for parts in looped]) < 1e-12


def test_sums_do_not_depend_on_the_number_of_threads():
    generator = torch.Generator().manual_seed(6)
    network = network_of(1, [20, 20], 1, nn.ReLU, generator, torch.float32)
    inputs = [random(generator, 6, 1_761, dtype=torch.float32)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(both_ways(lambda: network(inputs), [*inputs, *network.parameters()])[0])
    finally:
        torch.set_num_threads(before)
    for one, other in itertools.pairwise(found):
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("activation", operators.ACTIVATIONS)
def test_what_is_not_a_number_stays_so(activation, dtype):
    """As far as torch's own derivatives of it keep it."""
    network = network_of(1, [3], 1, activation, torch.Generator().manual_seed(8), dtype)
    x = torch.tensor([1.0, float("nan"), 2.0], dtype=dtype, requires_grad=True)
    fused, plain = both_ways(lambda: network([x]), [x, *network.parameters()])
    assert plain[0].isnan().tolist() == [False, True, False]
    if activation is nn.ELU:
        # torch's derivative of ELU at a NaN is NaN in whole vectors and 1 in what is left over
        assert fused[1].isnan().tolist() == [False, True, False]
        plain = [torch.where(kept.isnan(), kept, ours) for kept, ours in zip(plain, fused, strict=True)]
    assert [y.isnan().tolist() for y in fused] == [y.isnan().tolist() for y in plain]


def test_a_second_derivative_is_refused():
    network = network_of(1, [3], 1, nn.Tanh, torch.Generator().manual_seed(9))
    x = torch.ones(5, dtype=torch.float64, requires_grad=True)
    with fused_networks():
        (y,) = network([x])
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivative only"):
        torch.autograd.grad(slope.sum(), x)


def test_what_has_no_fused_form_is_plain():
    x = [torch.randn(3, 40)]
    for network in (Coordinatewise(1, [4], activation=nn.GELU), Coordinatewise(1, [500])):
        with fused_networks():
            fused = network(x)
        assert torch.equal(fused[0], network(x)[0])


def test_the_operators_are_registered_as_torch_wants_them():
    generator = torch.Generator().manual_seed(10)
    x, p = random(generator, 1, 2, 2, 31), random(generator, 1, 17)
    h, c = random(generator, 1, 2, 3, 31), random(generator, 1, 2, 3, 31)
    of_cell = random(generator, 1, 12 * 5 + 12 + 2 * 4)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(torch.ops.metalearn.network.default, (x, p, [2, 4, 1], 0), test_utils=checks)
    torch.library.opcheck(torch.ops.metalearn.cell.default, (x, h, c, of_cell, 2), test_utils=checks)


RULES = {
    "feed-forward": {"hidden": [6, 5], "inputs": ["grad", "loss", "theta"], "history": "update"},
    "lstm": {"hidden": 4},
}


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("rule", RULES)
def test_a_meta_gradient_through_fused_networks(rule, order):
    problem = Problem(Architecture((1, 8, 1)), tasks=3, steps=3, seed=2)
    torch.manual_seed(0)
    made = make_rule(rule, problem.learner.layout, **RULES[rule]).double()

    def flat():
        arguments = made, problem.learner, problem.theta, problem.task
        loss, grad, phi = meta_gradient(*arguments, steps=3, order=order)
        return [loss, grad, *phi.values()]

    plain = flat()
    with fused_networks():
        fused = flat()
    assert furthest(fused, plain) < 1e-11
