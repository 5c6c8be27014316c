"""Networks of ReLUs that read one number, evaluated segment by segment: as coordinate by coordinate."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metalearn_core import Coordinatewise
from metalearn_core.kernels.coordinatewise import fused_networks

if not shutil.which("g++"):
    pytest.skip("needs g++, a C++ compiler", allow_module_level=True)

ENOUGH, FEW = 1_200, 100
"""Coordinates that are enough for segments, and too few: they are evaluated one by one."""


def network_of(widths, outputs, scale, biases, generator):
    network = Coordinatewise(1, widths, outputs).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator) * scale)
            if not biases and name.endswith("bias"):
                parameter.zero_()
    return network


def gradients(kind, shape, generator):
    """Numbers as gradients are: near 0 and far from it, 0 itself where units are dead, clamped."""
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    if kind == "like gradients":
        x = (3 * x**3).clamp(-10, 10) * (torch.rand(shape, generator=generator) < 0.7)
    return {"positive": x.abs(), "all 0": 0 * x, "a few": x.round()}.get(kind, x)


def one_by_one(network, x, cotangents):
    """Values and vector-Jacobian products of the layers of torch."""
    x = x.detach().requires_grad_()
    found = network([x])
    grads = torch.autograd.grad(found, [x, *network.parameters()], cotangents)
    return [y.detach() for y in found], grads[0], list(grads[1:])


def fused(network, x, cotangents):
    with fused_networks():
        return one_by_one(network, x, cotangents)


def flat(answers):
    ys, grad, of_parameters = answers
    return [*ys, grad, *of_parameters]


def furthest(ours, theirs):
    """The largest difference, as a part of the largest element of each tensor; NaN where one is."""
    ratios = [
        (a.double() - b).abs().max() / (1e-300 + b.abs().max())
        for a, b in zip(flat(ours), flat(theirs), strict=True)
    ]
    return float(torch.stack(ratios).max())


def drawn(like, generator):
    return [torch.randn(y.shape, dtype=y.dtype, generator=generator) for y in like]


@settings(max_examples=80, deadline=None)
@given(
    widths=st.lists(st.integers(1, 24), min_size=1, max_size=6),
    outputs=st.integers(1, 3),
    scale=st.sampled_from([0.2, 0.6, 1.5]),
    biases=st.booleans(),
    kind=st.sampled_from(["normal", "like gradients", "positive", "all 0", "a few"]),
    shape=st.sampled_from([(ENOUGH,), (3, 701), (5, 260), (1_761,)]),
    seed=st.integers(0, 999),
)
def test_values_and_derivatives_are_those_of_the_layers(widths, outputs, scale, biases, kind, shape, seed):
    """At 0 too, where all kinks of a network without biases are, and torch takes the derivative for 0."""
    generator = torch.Generator().manual_seed(seed)
    network, x = network_of(widths, outputs, scale, biases, generator), gradients(kind, shape, generator)
    cotangents = drawn(network([x]), generator)
    assert furthest(fused(network, x, cotangents), one_by_one(network, x, cotangents)) < 1e-10


def pieces(network, x, cotangents):
    """The same numbers, a few at a time: too few for segments."""
    parts = [
        fused(network, x[at : at + FEW], [c[at : at + FEW] for c in cotangents])
        for at in range(0, len(x), FEW)
    ]
    ys, grads, of_parameters = zip(*parts, strict=True)
    summed = [torch.stack(one).sum(0) for one in zip(*of_parameters, strict=True)]
    return [torch.cat(one) for one in zip(*ys, strict=True)], torch.cat(grads), summed


def test_few_segments_are_used_and_many_are_not():
    """Segment by segment a value rounds otherwise than one by one; with more than 128 it does not."""
    generator = torch.Generator().manual_seed(0)
    x = gradients("normal", (2 * ENOUGH,), generator)
    few = network_of([20] * 5, 1, 0.4, True, generator)
    many = network_of([120, 120], 1, 0.4, True, generator)
    for network, alike in ((few, False), (many, True)):
        cotangents = drawn(network([x]), generator)
        ours, theirs = fused(network, x, cotangents), pieces(network, x, cotangents)
        assert torch.equal(ours[0][0], theirs[0][0]) is alike
        assert torch.equal(ours[1], theirs[1]) is alike
        assert furthest(ours, theirs) < 1e-11


@pytest.mark.parametrize("what", [float("nan"), float("inf")])
def test_what_is_not_finite_is_evaluated_one_by_one(what):
    generator = torch.Generator().manual_seed(1)
    network, x = network_of([6, 5], 1, 0.6, True, generator), gradients("normal", (ENOUGH,), generator)
    cotangents = drawn(network([x]), generator)
    broken = x.clone()
    broken[17] = what
    ours, theirs = (flat(way(network, broken, cotangents)) for way in (fused, one_by_one))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, equal_nan=True)
    with torch.no_grad():
        network[0].bias[0] = what
    ours, theirs = (flat(way(network, x, cotangents)) for way in (fused, one_by_one))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, equal_nan=True)


def test_each_group_has_segments_of_its_own():
    """Four seeds: with kinks here and there, with too many, and with an infinite number among its own."""
    generator = torch.Generator().manual_seed(2)
    networks = [network_of([70, 70], 2, scale, True, generator) for scale in (0.3, 0.01, 2.0, 0.3)]
    networks[1][0].bias.data.zero_()
    x = gradients("like gradients", (4, 3, 1, ENOUGH), generator)
    x[3, 1, 0, 5] = float("inf")
    parameters = torch.stack([torch.cat([p.reshape(-1) for p in n.parameters()]) for n in networks]).detach()
    cotangent = torch.randn(4, 3, 2, ENOUGH, dtype=torch.float64, generator=generator)

    def answers(which):
        a, b = x[which].clone().requires_grad_(), parameters[which].clone().requires_grad_()
        y = torch.ops.metalearn.network(a, b, [1, 70, 70, 2], 0)
        return [y.detach(), *torch.autograd.grad(y, [a, b], cotangent[which])]

    together = answers(slice(None))
    for seed in range(4):
        for ours, alone in zip(together, answers(slice(seed, seed + 1)), strict=True):
            torch.testing.assert_close(ours[seed : seed + 1], alone, rtol=0, atol=0, equal_nan=True)
        if seed < 3:
            network, rows = networks[seed], x[seed, :, 0]
            ys, grad, of_parameters = one_by_one(network, rows, list(cotangent[seed].unbind(1)))
            plain = [torch.stack(ys, 1), grad.unsqueeze(1), torch.cat([p.reshape(-1) for p in of_parameters])]
            for ours, theirs in zip(together, plain, strict=True):
                torch.testing.assert_close(ours[seed], theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("biases", [True, False])
def test_in_float32_it_errs_as_the_layers_do(biases):
    generator = torch.Generator().manual_seed(3)
    network, x = (
        network_of([20] * 5, 1, 0.35, biases, generator),
        gradients("like gradients", (8_000,), generator),
    )
    x = x.float().double()
    cotangents = drawn(network([x]), generator)
    short = Coordinatewise(1, [20] * 5, 1)
    short.load_state_dict(network.state_dict())
    with torch.no_grad():
        for parameter, exact in zip(short.parameters(), network.parameters(), strict=True):
            exact.copy_(parameter.double())
    truth = one_by_one(network, x, cotangents)
    ours, plain = (way(short, x.float(), [c.float() for c in cotangents]) for way in (fused, one_by_one))
    for one, other, exact in zip(flat(ours), flat(plain), flat(truth), strict=True):
        scale = exact.abs().max()
        errs = [float(torch.quantile((y.double() - exact).abs(), 0.99) / scale) for y in (one, other)]
        assert errs[0] <= 4 * max(errs[1], 1e-7)


def written_out(layers):
    """A network by its weights and biases, in float32; units that are never on make it large enough."""
    widths = [len(bias) for _, bias in layers[:-1]]
    network = Coordinatewise(1, [80, *widths[1:]])
    with torch.no_grad():
        for linear, (weight, bias) in zip(list(network)[::2], layers, strict=True):
            linear.weight.zero_(), linear.bias.fill_(-1.0 if linear is network[0] else 0.0)
            linear.weight[: len(bias), : len(weight[0])] = torch.tensor(weight)
            linear.bias[: len(bias)] = torch.tensor(bias)
    return network


NEAR_0 = {
    "one kink": [([[1.0]], [-1e-8]), ([[2.0]], [0.0])],
    "their order": [([[1.0]] * 3, [-1e-8, -3e-8, -2e-8]), ([[1.0, -2.0, 3.0]], [0.0])],
    "a layer above": [([[1.0]] * 2, [0.0, -1e-7]), ([[1.0, -2.0]], [-5e-8]), ([[1.0]], [0.0])],
}


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("layers", NEAR_0.values(), ids=NEAR_0)
def test_kinks_near_0_stand_where_they_are_beside_large_numbers(layers, side):
    """In float32 the distance to -10 would place them to 1e-6: a hundred times as far away as they are."""
    network = written_out(layers)
    with torch.no_grad():
        network[0].weight *= side
    x = torch.linspace(-5e-7 if len(layers) > 2 else -5e-8, 5e-7 if len(layers) > 2 else 5e-8, ENOUGH)
    x[0], x[-1] = -10.0, 10.0
    cotangents = [torch.ones(ENOUGH).index_fill(0, torch.tensor([0, ENOUGH - 1]), 0.0)]
    ours, theirs = (flat(way(network, x, cotangents)) for way in (fused, one_by_one))
    for one, other in zip(ours, theirs, strict=True):
        scale = other[1:-1].abs().max() if other.shape == x.shape else other.abs().max()
        wrong = (one - other).abs() > 1e-5 * scale
        if other.shape == x.shape:
            wrong = wrong[1:-1]
        assert wrong.double().mean() < 2 / ENOUGH


@pytest.mark.parametrize("far", [10.0, 1e4])
@pytest.mark.parametrize("bias", [1.0, 1e-2, 1e-4])
def test_in_float32_a_few_large_numbers_spoil_nothing(far, bias):
    """Gradients as they are: most about as small as biases, some clamped or not."""
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        exact = network_of([20, 20, 20], 1, 0.3, True, generator)
        with torch.no_grad():
            for linear in list(exact)[::2]:
                linear.bias *= bias
        x = 3 * bias * torch.randn(ENOUGH, dtype=torch.float64, generator=generator)
        x[:4] = torch.tensor([far, -far, far / 2, -far / 3])
        short = Coordinatewise(1, [20, 20, 20])
        short.load_state_dict(exact.state_dict())
        exact.load_state_dict(short.state_dict())
        cotangents = drawn(exact([x]), generator)
        cotangents[0][:4] = 0
        truth = one_by_one(exact, x.float().double(), cotangents)
        given = (short, x.float(), [c.float() for c in cotangents])
        ours, plain = (
            [(a.double() - b).abs().max() / b.abs().max() for a, b in zip(found, truth[2], strict=True)]
            for found in (way(*given)[2] for way in (fused, one_by_one))
        )
        for one, other in zip(ours, plain, strict=True):
            assert one <= 4 * other + 3e-6


@pytest.mark.parametrize(
    ("weights", "numbers"), [(1.0, 1e38), (1e8, 1e-12)], ids=["an outlier", "large weights"]
)
def test_what_overflows_within_is_evaluated_one_by_one(weights, numbers):
    generator = torch.Generator().manual_seed(6)
    network = network_of([8] * 4, 1, weights, False, generator).float()
    x = torch.randn(ENOUGH, generator=generator)
    x = x * numbers if numbers < 1 else x.index_fill(0, torch.tensor([3]), numbers)
    ours, theirs = (flat(way(network, x, [torch.ones(ENOUGH)])) for way in (fused, pieces))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=0, equal_nan=True)


def test_other_activations_and_other_inputs_have_none():
    generator = torch.Generator().manual_seed(4)
    x = gradients("normal", (ENOUGH,), generator)
    for network in (
        Coordinatewise(1, [80], activation=nn.Tanh),
        Coordinatewise(1, []),
        Coordinatewise(1, [80]),
    ):
        network = network.double()
        cotangents = drawn(network([x]), generator)
        ours = fused(network, x, cotangents)
        assert torch.equal(ours[0][0], pieces(network, x, cotangents)[0][0]) is not any(
            isinstance(module, nn.ReLU) for module in network
        )
        assert furthest(ours, one_by_one(network, x, cotangents)) < 1e-12
