"""TURTLE's rule: Equations 3.6 and 3.7 by a plain loop over steps, coordinates and layers."""

import functools
import math

import pytest
import torch
from torch import nn

from metalearn_core import ParameterLayout, Signal, UsageError, forked_rng, make_rule

double = functools.partial(torch.tensor, dtype=torch.float64)

LAYOUT = ParameterLayout(("w", "b"), ((2, 2), (2,)))
ALL = ["grad", "loss", "theta", "step"]


def feed_forward(seed=0, **options):
    with forked_rng(torch.Generator().manual_seed(seed)):
        rule = make_rule("feed-forward", LAYOUT, **options).double()
        for name, p in rule.named_parameters():
            if name.endswith("bias"):  # 0 as they are drawn, which would hide them
                nn.init.normal_(p)
    return rule


def signals(count=4):
    generator = torch.Generator().manual_seed(4)
    grads = torch.randn(count, LAYOUT.size, generator=generator, dtype=torch.float64)
    grads[:, 0] = 0.0
    return list(zip(grads.tolist(), (3.0, 0.5, 1e-7, 2.0), strict=True))


def columns(x, log):
    if not log:
        return [x]
    if abs(x) >= math.exp(-10):
        return [math.log(abs(x)) / 10, math.copysign(1, x)]
    return [-1.0, math.exp(10) * x]


def network(rule, row, activation):
    """g: the linear maps one number at a time, the activation after each but the last."""
    layers = [part for part in rule.network if isinstance(part, nn.Linear)]
    for index, layer in enumerate(layers):
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        row = [sum(w * x for w, x in zip(weight, row, strict=True)) + bias for weight, bias in rows]
        if index < len(layers) - 1:
            row = [activation(x) for x in row]
    (proposed,) = row
    return proposed


PLAIN = {
    "relu": lambda x: max(x, 0.0),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
}


def by_hand(rule, theta, inputs, log, history, timing, beta, activation):
    """Each coordinate by itself. `program`: gradients are averaged from the first on, with the
    current one; updates from the first one, taken whole, on."""
    alpha = rule.alpha.tolist() if hasattr(rule, "alpha") else [1.0] * LAYOUT.size
    answers = []
    for j, x in enumerate(theta.tolist()):
        h = 0.0

        def average(new, step, h):
            return new if timing == "program" and step == 0 else beta * h + (1 - beta) * new

        for step, (grads, loss) in enumerate(signals()):
            if history == "grad" and timing == "program":
                h = average(grads[j], step, h)
            row = [
                *(columns(grads[j], log) if "grad" in inputs else []),
                *(columns(loss, log) if "loss" in inputs else []),
                *([x] if "theta" in inputs else []),
                *(columns(h, log) if history != "none" else []),
                *([float(step)] if "step" in inputs else []),
            ]
            change = alpha[j] * network(rule, row, PLAIN[activation])
            x += change
            if history == "update":
                h = average(change, step, h)
            elif history == "grad" and timing == "equation":
                h = average(grads[j], step, h)
        answers.append(x)
    return double(answers)


def agrees_with_the_equations(
    inputs=("grad",), preprocess="none", history="none", history_timing="equation", beta=0.9,
    hidden=(3,), activation="tanh", **options,
):  # fmt: skip
    rule = feed_forward(
        inputs=inputs, preprocess=preprocess, history=history, history_timing=history_timing,
        beta=beta, hidden=hidden, activation=activation, **options,
    )  # fmt: skip
    theta = start = torch.linspace(-1, 1, LAYOUT.size).double()
    state = rule.init_state(theta)
    for step, (grad, loss) in enumerate(signals()):
        signal = Signal(double(grad), double(loss), step)
        theta, state = rule.update(theta, signal, state)
    log = preprocess == "log"
    expected = by_hand(rule, start, inputs, log, history, history_timing, beta, activation)
    torch.testing.assert_close(theta, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("timing", ["equation", "program"])
@pytest.mark.parametrize("history", ["none", "grad", "update"])
@pytest.mark.parametrize("preprocess", ["none", "log"])
@pytest.mark.parametrize("inputs", [["grad"], ["loss", "grad"], ["step", "theta"], ALL, ALL[::-1]])
def test_equations_3_6_and_3_7(inputs, preprocess, history, timing):
    options = {"learn_lr": "parameter", "alpha_start": "uniform"}  # so that every α differs
    agrees_with_the_equations(inputs, preprocess, history, timing, beta=0.7, **options)


@pytest.mark.parametrize("activation", PLAIN)
@pytest.mark.parametrize("hidden", [[], [4], [3, 2], [20, 20, 20, 20, 20]])
def test_every_activation_and_depth(hidden, activation):
    agrees_with_the_equations(ALL, hidden=hidden, activation=activation)


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("history", ["grad", "update"])
@pytest.mark.parametrize("timing", ["equation", "program"])
def test_a_history_alone(history, beta, timing):
    agrees_with_the_equations([], "none", history, timing, beta=beta)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1741),  # (1+1)·20 + 4·(20+1)·20 + (20+1)
        ({"inputs": ["grad", "loss"]}, 1761),
        ({"inputs": ["grad", "loss", "theta"]}, 1781),
        ({"inputs": ["grad", "step"], "history": "grad"}, 1781),
        ({"preprocess": "log"}, 1761),
        ({"learn_lr": "parameter"}, 1741 + LAYOUT.size),
        ({"hidden": []}, 2),
    ],
)
def test_number_of_meta_parameters(options, count):
    rule = make_rule("feed-forward", LAYOUT, **options)
    assert sum(p.numel() for p in rule.parameters()) == count


def test_alpha_starts_at_ones_or_uniform():
    assert not hasattr(make_rule("feed-forward", LAYOUT), "alpha")
    large = ParameterLayout(("w",), ((2000,),))
    ones = make_rule("feed-forward", large, learn_lr="parameter").alpha
    assert ones.shape == (2000,)
    assert (ones == 1).all()
    with forked_rng(torch.Generator().manual_seed(0)):
        uniform = make_rule("feed-forward", large, learn_lr="parameter", alpha_start="uniform").alpha
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() < 1


def test_biases_start_at_zero_and_weights_as_torch_draws_them():
    rule = make_rule("feed-forward", LAYOUT)
    for name, p in rule.network.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        else:
            assert 0 < p.abs().max() <= p.shape[1] ** -0.5
    with forked_rng(torch.Generator().manual_seed(0)):
        first = make_rule("feed-forward", LAYOUT).network[0].weight
    with forked_rng(torch.Generator().manual_seed(0)):
        assert torch.equal(first, nn.Linear(1, 20).weight)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hiden": [20]}, ["hiden", "hidden"]),
        ({"hidden": [20, 0]}, ["hidden", "[20, 0]"]),
        ({"hidden": 20}, ["hidden"]),
        ({"activation": "reluu"}, ["activation", "did you mean 'relu'"]),
        ({"inputs": ["grad", "gard"]}, ["input", "'gard'", "did you mean 'grad'"]),
        ({"inputs": []}, ["inputs", "grad", "history"]),
        ({"preprocess": "log10"}, ["preprocess", "'log10'"]),
        ({"history": "grads"}, ["history", "did you mean 'grad'"]),
        ({"history_timing": "paper"}, ["history_timing", "'paper'"]),
        ({"beta": 1.5}, ["beta", "1.5"]),
        ({"learn_lr": "scalar"}, ["learn_lr", "'scalar'"]),
        ({"alpha_start": "zeros"}, ["alpha_start", "'zeros'"]),
    ],
    ids=str,
)
def test_a_mistake_is_named(options, said):
    with pytest.raises(UsageError) as error:
        make_rule("feed-forward", LAYOUT, **options)
    for part in ("feed-forward", *said):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden": []},
        {"hidden": [2]},
        {"hidden": [20]},
        {"inputs": ["grad", "step"]},
        {"learn_lr": "parameter"},
    ],
)
def test_a_network_can_start_as_descent(options):
    rule = make_rule("feed-forward", LAYOUT, start="descent", start_lr=0.25, **options).double()
    theta = torch.linspace(-2, 2, LAYOUT.size).double()
    grad = torch.linspace(3, -1, LAYOUT.size).double()
    moved, _ = rule.update(theta, Signal(grad, torch.tensor(1.0).double(), 2), rule.init_state(theta))
    torch.testing.assert_close(moved, theta - 0.25 * grad, rtol=1e-15, atol=0)


def test_units_that_do_not_carry_the_start_can_learn():
    rule = make_rule("feed-forward", LAYOUT, hidden=[20, 20], start="descent").double()
    theta = torch.zeros(LAYOUT.size).double()
    signal = Signal(torch.linspace(3, -1, LAYOUT.size).double(), torch.tensor(1.0).double(), 0)
    rule.update(theta, signal, ())[0].square().sum().backward()
    assert (rule.network[-1].weight.grad[0, 2:] != 0).any()


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": ["loss"]},
        {"preprocess": "log"},
        {"activation": "tanh"},
        {"hidden": [20, 1]},
        {"start_lr": -1.0},
    ],
)
def test_a_start_that_cannot_be_descent_is_refused(options):
    with pytest.raises(UsageError, match="start"):
        make_rule("feed-forward", LAYOUT, start="descent", **options)
