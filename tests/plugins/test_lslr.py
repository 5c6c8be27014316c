"""LSLR: θₗ ← θₗ − αₗ⁽ᵗ⁾ ∇ₗ, in plain floats."""

import pytest
from rule_paths import LAYOUT, gradients, places, rule_of, same, start, walked

from metalearn_core import make_rule


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_its_equation_coordinate_by_coordinate(rows):
    """Steps beyond its rows take the last one."""
    rule, grads = rule_of("lslr", steps=rows), gradients(4)
    theta, rates = start().tolist(), rule.inner_lrs.tolist()
    assert len({rate for row in rates for rate in row}) == 4 * rows
    for t, grad in enumerate(grads.tolist()):
        for tensor, coordinates in enumerate(places()):
            for j in coordinates:
                theta[j] -= rates[min(t, rows - 1)][tensor] * grad[j]
    same(walked(rule, grads, start()), theta)


def test_its_meta_parameters():
    rule = make_rule("lslr", LAYOUT, inner_lr=0.3, steps=3)
    assert {name: tuple(p.shape) for name, p in rule.named_parameters()} == {"inner_lrs": (3, 4)}
    assert rule.inner_lrs.unique().tolist() == pytest.approx([0.3])
