"""The meta-learner LSTM: Equation 3.3 in plain floats, and torch's own LSTM cell."""

import functools
import math

import pytest
import torch
from torch import nn

from metalearn_core import (
    ParameterLayout,
    Signal,
    UsageError,
    forked_rng,
    log_and_sign,
    make_rule,
)

double = functools.partial(torch.tensor, dtype=torch.float64)

LAYOUT = ParameterLayout(("w",), ((5,),))
STEPS = 3


def lstm(seed=0, **options):
    with forked_rng(torch.Generator().manual_seed(seed)):
        return make_rule("lstm", LAYOUT, **options).double()


def signals(count=STEPS):
    """Gradients, one of them exactly 0 and one tiny, and losses."""
    generator = torch.Generator().manual_seed(4)
    grads = torch.randn(count, LAYOUT.size, generator=generator, dtype=torch.float64)
    grads[:, 0], grads[1, 1], grads[2, 1] = 0.0, 1e-6, -1e-6
    return list(zip(grads, (3.0, 0.5, 1e-7), strict=True))


def run(rule, theta):
    state = rule.init_state(theta)
    for step, (grad, loss) in enumerate(signals()):
        theta, state = rule.update(theta, Signal(grad, double(loss), step), state)
    return theta


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def columns(x, log):
    """Appendix A of Andrychowicz et al. (2016), p = 10."""
    if not log:
        return [x]
    if abs(x) >= math.exp(-10):
        return [math.log(abs(x)) / 10, math.copysign(1, x)]
    return [-1.0, math.exp(10) * x]


def equation_3_3(rule, theta, inputs, log, logit, scale):
    """One coordinate after another, in plain floats."""
    gates = [(gate.weight[0].tolist(), gate.bias.item()) for gate in (rule.forget_gate, rule.input_gate)]
    answers = []
    for j, x in enumerate(theta.tolist()):
        fed_back = [0.0, 0.0]
        for grads, loss in signals():
            grad = scale * grads[j].item()
            seen = {"grad": grad, "loss": loss}
            features = [c for name in ("grad", "loss") if name in inputs for c in columns(seen[name], log)]
            logits = [
                sum(w * v for w, v in zip(weight, [*features, x, previous], strict=True)) + bias
                for (weight, bias), previous in zip(gates, fed_back, strict=True)
            ]
            forget, step = map(sigmoid, logits)
            x = forget * x - step * grad
            fed_back = logits if logit else [forget, step]
        answers.append(x)
    return double(answers)


@pytest.mark.parametrize("inputs", [["grad", "loss"], ["loss", "grad"], ["grad"], ["loss"]])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("logit", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_equation_3_3_coordinate_by_coordinate(inputs, log, logit, scale):
    rule = lstm(
        inputs=inputs,
        preprocess="log" if log else "none",
        previous_gate="logit" if logit else "sigmoid",
        candidate_scale=scale,
        weight_range=1.0,  # so that every column counts
        input_bias=(-1.0, 1.0),
    )
    theta = torch.linspace(-2, 2, LAYOUT.size).double()
    expected = equation_3_3(rule, theta, inputs, log, logit, scale)
    torch.testing.assert_close(run(rule, theta), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("inputs", [["grad", "loss"], ["grad"]])
def test_the_first_layer_is_torchs_lstm_cell(inputs, log):
    hidden = 20
    rule = lstm(
        hidden=hidden, inputs=inputs, preprocess="log" if log else "none",
        previous_gate="logit", weight_range=1.0,
    )  # fmt: skip
    cell = nn.LSTMCell(len(inputs) * (2 if log else 1), hidden).double()
    cell.load_state_dict(
        {
            f"{kind}_{ours}": getattr(part, kind)
            for ours, part in (("ih", rule.input_map), ("hh", rule.hidden_map))
            for kind in ("weight", "bias")
        }
    )
    theta = start = torch.linspace(-2, 2, LAYOUT.size).double()
    memory, forget, step = None, torch.zeros_like(theta), torch.zeros_like(theta)
    for grad, loss in signals():
        given = {"grad": grad.tolist(), "loss": [loss] * LAYOUT.size}
        rows = zip(*(given[name] for name in inputs), strict=True)
        features = [[c for x in row for c in columns(x, log)] for row in rows]
        memory = cell(double(features), memory)
        forget, step = (
            gate(torch.cat([memory[0], theta[:, None], previous[:, None]], 1))[:, 0]
            for gate, previous in ((rule.forget_gate, forget), (rule.input_gate, step))
        )
        theta = torch.sigmoid(forget) * theta - torch.sigmoid(step) * grad
    torch.testing.assert_close(run(rule, start), theta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"hidden": 20, "preprocess": "log"}, 2126),  # 4·20·(4+20+2) + 2·(22+1)
        ({"hidden": 20, "inputs": ["grad"]}, 1886),
        ({}, 2 * (4 + 1)),
        ({"inputs": ["grad"]}, 2 * (3 + 1)),
    ],
)
def test_number_of_meta_parameters(options, count):
    for layout in (LAYOUT, ParameterLayout(("w",), ((70,),))):  # shared, so whatever n is
        rule = make_rule("lstm", layout, **options)
        assert sum(p.numel() for p in rule.parameters()) == count


def test_names_of_the_meta_parameters():
    names = [f"{part}.{kind}" for part in ("forget_gate", "input_gate") for kind in ("weight", "bias")]
    first_layer = [f"{part}.{kind}" for part in ("input_map", "hidden_map") for kind in ("weight", "bias")]
    assert [name for name, _ in lstm().named_parameters()] == names
    assert [name for name, _ in lstm(hidden=3).named_parameters()] == names + first_layer


@pytest.mark.parametrize(
    ("options", "forget", "step"),
    [
        ({}, (4.0, 6.0), (-5.0, -4.0)),
        ({"forget_bias": (1.0, 1.5), "input_bias": [-0.5, 0.5]}, (1.0, 1.5), (-0.5, 0.5)),
    ],
)
def test_gates_are_drawn_from_their_ranges(options, forget, step):
    rules = [lstm(seed, hidden=4, weight_range=0.03, **options) for seed in range(200)]
    for gate, (low, high) in (("forget_gate", forget), ("input_gate", step)):
        drawn = torch.stack([getattr(rule, gate).bias for rule in rules])
        assert low <= drawn.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < drawn.max() <= high
        weights = torch.stack([getattr(rule, gate).weight for rule in rules])
        assert 0.029 < weights.abs().max() <= 0.03


def test_it_starts_by_keeping_everything_and_stepping_little():
    theta = torch.ones(LAYOUT.size).double()
    signal = Signal(torch.ones_like(theta), double(1.0), 0)
    new, _ = lstm().update(theta, signal, lstm().init_state(theta))
    assert ((new > 0.95) & (new < 1)).all()


def test_log_and_sign():
    edge = math.exp(-10)
    xs = [0.0, edge / 2, -edge / 2, edge * 1.001, 1e-3, 1.0, -1.0, 1e30]
    expected = double([columns(x, True) for x in xs])
    x = double(xs).requires_grad_()
    logarithm, sign = log_and_sign(x)
    torch.testing.assert_close(torch.stack([logarithm, sign], 1), expected)
    slopes = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0].tolist() for y in (logarithm, sign)]
    for i, value in enumerate(xs):
        large = abs(value) >= edge
        assert slopes[0][i] == pytest.approx(1 / (10 * value) if large else 0)
        assert slopes[1][i] == pytest.approx(0 if large else math.exp(10))


def test_log_and_sign_with_another_p_and_in_float32():
    logarithm, sign = log_and_sign(torch.tensor([math.exp(-3), 0.0, -math.exp(-5)]), p=4.0)
    torch.testing.assert_close(logarithm, torch.tensor([-0.75, -1.0, -1.0]))
    torch.testing.assert_close(sign, torch.tensor([1.0, 0.0, -math.exp(-1)]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hiden": 20}, ["hiden", "hidden"]),
        ({"hidden": -1}, ["hidden", "-1"]),
        ({"hidden": 2.5}, ["hidden", "2.5"]),
        ({"inputs": []}, ["inputs", "grad", "loss"]),
        ({"inputs": ["grad", "theta"]}, ["input", "'theta'"]),
        ({"preprocess": "logs"}, ["preprocess", "'logs'"]),
        ({"previous_gate": "tanh"}, ["previous_gate", "'tanh'"]),
        ({"forget_bias": (6.0, 4.0)}, ["forget_bias"]),
        ({"input_bias": 1.0}, ["input_bias"]),
        ({"weight_range": -1.0}, ["weight_range"]),
    ],
    ids=str,
)
def test_a_mistake_is_named(options, said):
    with pytest.raises(UsageError) as error:
        make_rule("lstm", LAYOUT, **options)
    for part in ("lstm", *said):
        assert part in str(error.value)


@pytest.mark.parametrize("hidden", [0, 20])
@pytest.mark.parametrize("log", [False, True])
def test_without_memory_every_step_is_a_first_step(hidden, log):
    options = {"hidden": hidden, "preprocess": "log" if log else "none", "weight_range": 1.0}
    rule, remembers = lstm(memory="none", **options), lstm(**options)
    theta = expected = torch.linspace(-2, 2, LAYOUT.size).double()
    for step, (grad, loss) in enumerate(signals()):
        signal = Signal(grad, double(loss), step)
        expected, _ = remembers.update(expected, signal, remembers.init_state(expected))
    torch.testing.assert_close(run(rule, theta), expected, rtol=0, atol=0)
    assert not torch.allclose(run(remembers, theta), expected)
    assert rule.init_state(theta) == ()


def test_a_learned_step_size_scales_the_second_term_alone():
    rule, plain = lstm(learn_lr="parameter", inputs=["grad"]), lstm(inputs=["grad"])
    theta = torch.linspace(-2, 2, LAYOUT.size).double()
    torch.testing.assert_close(run(rule, theta), run(plain, theta), rtol=0, atol=0)
    alpha = torch.linspace(0.5, 3, LAYOUT.size).double()
    with torch.no_grad():
        rule.alpha.copy_(alpha)
    signal = Signal(signals()[0][0], double(1.0), 0)
    moved, _ = rule.update(theta, signal, rule.init_state(theta))
    once, _ = plain.update(theta, signal, plain.init_state(theta))
    still, _ = plain.update(theta, Signal(0 * signal.grad, double(1.0), 0), plain.init_state(theta))
    forget = still / theta  # with a gradient of 0 the input gate moves nothing
    weight = plain.forget_gate.weight[0].detach()
    kept = torch.sigmoid(torch.logit(forget) + weight[0] * signal.grad) * theta
    expected = torch.where(theta == 0, moved, kept + alpha * (once - kept))
    torch.testing.assert_close(moved, expected, rtol=1e-12, atol=1e-12)
    assert not rule.coordinatewise


@pytest.mark.parametrize("given", [{"memory": "some"}, {"learn_lr": "scalar"}])
def test_a_memory_or_step_size_of_another_name_is_refused(given):
    (value,) = given.values()
    with pytest.raises(UsageError, match=value):
        lstm(**given)


def test_what_a_seed_draws_stays_as_records_have_it():
    with forked_rng(torch.Generator().manual_seed(3)):
        rule = make_rule("lstm", LAYOUT, hidden=20)
    drawn = sum(parameter.detach().double().sum().item() for parameter in rule.parameters())
    assert drawn == pytest.approx(3.2209496, abs=1e-6)
