"""A path of updates on given gradients, for rules that are compared with their equations in plain floats."""

from __future__ import annotations

import torch

from metalearn_core import ParameterLayout, Signal, forked_rng, make_rule

LAYOUT = ParameterLayout(("kernel", "weight", "bias", "scale"), ((2, 3, 2, 1), (3, 2), (3,), ()))
"""A convolution's weight, a linear layer's, a vector and a scalar: n = 22."""


def rule_of(name, *, layout=LAYOUT, spread=0.3, **options):
    """A rule in float64 whose φ are all moved away from where they start."""
    with forked_rng(torch.Generator().manual_seed(0)):
        rule = make_rule(name, layout, **options).double()
        with torch.no_grad():
            for parameter in rule.parameters():
                parameter.add_(spread * torch.randn_like(parameter))
    return rule


def gradients(steps, layout=LAYOUT):
    """Gradients, one coordinate of them exactly 0 and one tiny."""
    grads = torch.randn(steps, layout.size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    grads[:, 0], grads[:, 1] = 0.0, 1e-6
    return grads


def start(layout=LAYOUT):
    return torch.linspace(-2, 2, layout.size, dtype=torch.float64)


def walked(rule, grads, theta):
    """θ⁽ᵀ⁾ by the rule; its losses are not to be read."""
    state = rule.init_state(theta)
    for step, grad in enumerate(grads):
        theta, state = rule.update(theta, Signal(grad, None, step), state)
    return theta.detach()


def places(layout=LAYOUT):
    """For every tensor, where its coordinates lie."""
    found, begin = [], 0
    for size in layout.sizes:
        found.append(range(begin, begin + size))
        begin += size
    return found


def same(ours, theirs):
    theirs = torch.tensor(theirs, dtype=torch.float64)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
