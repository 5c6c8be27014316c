"""Meta-Curvature: G ×₁ M_o ×₂ M_i ×₃ M_f as sums over indices."""

import itertools
import math

import pytest
import torch
from rule_paths import LAYOUT, gradients, places, rule_of, same, start, walked

from metalearn_core import ParameterLayout, Signal, make_rule

SHAPES = [(2, 3, 2), (3, 2, 1), (3, 1, 1), (1, 1, 1)]
"""Of the tensors of LAYOUT: outputs, inputs, and what is left."""


def sums(grad, matrices, shape):
    """Σₒᵢₖ M_o[p, o] M_i[q, i] M_f[r, k] G[o, i, k], an axis without a matrix as it is."""
    ranges = [range(n) for n in shape]
    position = {index: place for place, index in enumerate(itertools.product(*ranges))}

    def weight(new, old):
        kept = [M[p][o] for M, p, o in zip(matrices, new, old, strict=False)]
        return math.prod(kept) * all(p == o for p, o in list(zip(new, old, strict=True))[len(matrices) :])

    return [sum(weight(new, old) * grad[position[old]] for old in position) for new in position]


def test_its_equation_coordinate_by_coordinate():
    rule, grads = rule_of("meta-curvature", inner_lr=0.5), gradients(3)
    matrices = [
        [curvature[axis].tolist() for axis in ("out", "in", "kernel") if axis in curvature]
        for curvature in rule.curvatures
    ]
    assert [len(of) for of in matrices] == [3, 2, 1, 1]
    theta = start().tolist()
    for grad in grads.tolist():
        for of, shape, coordinates in zip(matrices, SHAPES, places(), strict=True):
            transformed = sums([grad[j] for j in coordinates], of, shape)
            for j, value in zip(coordinates, transformed, strict=True):
                theta[j] -= 0.5 * value
    same(walked(rule, grads, start()), theta)


def test_its_meta_parameters():
    shapes = {name: tuple(p.shape) for name, p in make_rule("meta-curvature", LAYOUT).named_parameters()}
    assert shapes == {
        "curvatures.0.out": (2, 2), "curvatures.0.in": (3, 3), "curvatures.0.kernel": (2, 2),
        "curvatures.1.out": (3, 3), "curvatures.1.in": (2, 2),
        "curvatures.2.out": (3, 3), "curvatures.3.out": (1, 1),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["kernel", "weight", "bias", "scale"])
def test_a_tensor_has_its_own_matrices(name):
    """Another gradient of one tensor moves no other."""
    rule, before = rule_of("meta-curvature"), gradients(1)[0]
    other = LAYOUT.unflatten(before.clone())
    other[name] = other[name] + 1
    ends = [rule.update(start(), Signal(grad, None, 0), ())[0] for grad in (before, LAYOUT.flatten(other))]
    moved = LAYOUT.unflatten((ends[0] - ends[1]).detach())
    assert {tensor for tensor, change in moved.items() if change.abs().max() > 0} == {name}


def test_many_axes_are_one():
    """A kernel of 2 by 3 is an axis of 6."""
    ours, theirs = (
        rule_of("meta-curvature", layout=ParameterLayout(("w",), (shape,)))
        for shape in ((2, 2, 2, 3), (2, 2, 6))
    )
    grad = torch.randn(24, generator=torch.Generator().manual_seed(0)).double()
    ends = [rule.update(torch.zeros(24).double(), Signal(grad, None, 0), ())[0] for rule in (ours, theirs)]
    assert torch.equal(*ends)
