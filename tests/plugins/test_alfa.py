"""ALFA: rates and decays from the means of gradients and parameters, in plain floats."""

import copy

import pytest
import torch
from rule_paths import LAYOUT, gradients, places, rule_of, same, start, walked

from metalearn_core import make_rule


def perceptron(weights, x):
    """Two layers with a ReLU between them, number by number."""
    first, bias, second, last_bias = weights
    hidden = [
        max(0.0, sum(w * v for w, v in zip(r, x, strict=True)) + b) for r, b in zip(first, bias, strict=True)
    ]
    return [
        sum(w * h for w, h in zip(r, hidden, strict=True)) + b for r, b in zip(second, last_bias, strict=True)
    ]


def mean(values, coordinates):
    return sum(values[j] for j in coordinates) / len(coordinates)


@pytest.mark.parametrize("options", [{"steps": 4}, {"steps": 2, "hidden": 3, "weight_decay": 0.5}], ids=str)
def test_its_equation_coordinate_by_coordinate(options):
    rule, grads = rule_of("alfa", **options), gradients(4)
    halves = [[p.tolist() for p in half.parameters()] for half in (rule.left, rule.right)]
    assert halves[0] != halves[1]
    theta, a, b = start().tolist(), rule.a.tolist(), rule.b.tolist()
    for t, grad in enumerate(grads.tolist()):
        tau = [mean(values, part) for values in (grad, theta) for part in places()]
        left, right = (perceptron(half, tau) for half in halves)
        g = [1 + x - y for x, y in zip(left, right, strict=True)]
        row = min(t, len(a) - 1)
        for tensor, coordinates in enumerate(places()):
            alpha, beta = a[row][tensor] * g[tensor], b[row][tensor] * g[tensor + len(places())]
            for j in coordinates:
                theta[j] = beta * theta[j] - alpha * grad[j]
    same(walked(rule, grads, start()), theta)


def test_its_meta_parameters():
    rule = make_rule("alfa", LAYOUT, inner_lr=0.5, weight_decay=0.1, steps=3)
    shapes = {name: tuple(p.shape) for name, p in rule.named_parameters()}
    halves = {f"{half}.{layer}.{kind}": shape for half in ("left", "right") for layer in (0, 2)
              for kind, shape in (("weight", (8, 8)), ("bias", (8,)))}  # fmt: skip
    assert shapes == {"a": (3, 4), "b": (3, 4), **halves}
    assert rule.a.unique().tolist() == pytest.approx([0.5])
    assert rule.b.unique().tolist() == pytest.approx([0.95])
    assert make_rule("alfa", LAYOUT, hidden=3).left[0].weight.shape == (3, 8)


def test_both_halves_of_the_generator_part_when_they_are_trained():
    """The meta-gradient is not 0 where it starts, and opposite: a last layer of zeros would have had none."""
    rule = make_rule("alfa", LAYOUT).double()
    first = copy.deepcopy(rule.left)
    loss = (walked_with_graph(rule) ** 2).sum()
    ours, theirs = (torch.autograd.grad(loss, list(half.parameters()), retain_graph=True)
                    for half in (rule.left, rule.right))  # fmt: skip
    for name, x, y in zip(dict(first.named_parameters()), ours, theirs, strict=True):
        assert x.abs().max() > 0, name
        torch.testing.assert_close(x, -y)


def walked_with_graph(rule):
    from metalearn_core import Signal

    return rule.update(start(), Signal(gradients(1)[0], None, 0), ())[0]
