"""The optimiser of Metz et al.: features and network, number by number."""

import math

import pytest
from rule_paths import LAYOUT, gradients, places, rule_of, same, start, walked

from metalearn_core import ParameterLayout, make_rule

TIMESCALES = [1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5]


def normalised(values):
    """Over the root of the mean square within each tensor."""
    found = list(values)
    for coordinates in places():
        mean = sum(values[j] ** 2 for j in coordinates) / len(coordinates)
        for j in coordinates:
            found[j] = values[j] / math.sqrt(mean + 1e-5)
    return found


def network(layers, x):
    """Linear maps with a ReLU between them."""
    for position, (weight, bias) in enumerate(layers):
        x = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        x = x if position == len(layers) - 1 else [max(0.0, v) for v in x]
    return x


@pytest.mark.parametrize(
    "options",
    [{}, {"hidden": [4], "betas": [0.5], "step_scale": 0.3, "exp_scale": 0.2}, {"hidden": [], "betas": []}],
    ids=str,
)
def test_its_equation_coordinate_by_coordinate(options):
    rule, grads = rule_of("mlp-optimizer", **options), gradients(3)
    betas = options.get("betas", [0.1, 0.5, 0.9, 0.99, 0.999, 0.9999])
    step_scale, exp_scale = (options.get(name, 0.001) for name in ("step_scale", "exp_scale"))
    numbers = [p.tolist() for p in rule.network.parameters()]
    layers = list(zip(numbers[::2], numbers[1::2], strict=True))
    theta, momenta = start().tolist(), [[0.0] * LAYOUT.size for _ in betas]
    for t, grad in enumerate(grads.tolist()):
        momenta = [
            [beta * v + (1 - beta) * g for v, g in zip(momentum, grad, strict=True)]
            for beta, momentum in zip(betas, momenta, strict=True)
        ]
        columns = list(zip(*map(normalised, [grad, theta, *momenta]), strict=True))
        time = [math.tanh(t / s - 1) for s in TIMESCALES]
        for j, seen in enumerate(columns):
            direction, magnitude = network(layers, [*seen, *time])
            theta[j] -= step_scale * direction * math.exp(exp_scale * magnitude)
    same(walked(rule, grads, start()), theta)


@pytest.mark.parametrize("layout", [LAYOUT, ParameterLayout(("w",), ((70,),))], ids=["22", "70"])
def test_number_of_meta_parameters(layout):
    """Nineteen features, 32, 32, and 2 outputs, whatever n is."""
    count = sum(p.numel() for p in make_rule("mlp-optimizer", layout).parameters())
    assert count == 20 * 32 + 33 * 32 + 33 * 2
