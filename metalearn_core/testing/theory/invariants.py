"""Invariants that several rules keep, for separations: see `metalearn_core.testing.theory.separation`."""

from __future__ import annotations

from torch import Tensor

from metalearn_core.rule import UpdateRule
from metalearn_core.testing.theory.separation import Probe, path


def treats_a_tensor_alike(rule: UpdateRule, probe: Probe) -> float:
    """Coordinates of one tensor with the same θ and the same gradient stay the same."""
    if probe.n < 3:
        return 0.0  # the first tensor has one coordinate
    theta, grad = probe.normal(probe.n), probe.normal(probe.n, salt=1)
    theta[1], grad[1] = theta[0], grad[0]
    last = path(rule, theta, grad, probe.steps)[-1]
    return relative(last[0] - last[1], last)


def steps_are_bounded(rule: UpdateRule, probe: Probe) -> float:
    """The step, as a part of the gradient, tends to 0 as the gradient grows."""
    grad = 1e15 * probe.normal(probe.n, salt=1)
    before, after = path(rule, probe.normal(probe.n), grad, 1)
    return relative(after - before, grad)


def relative(difference: Tensor, scale: Tensor) -> float:
    """The largest element, as a part of the largest of `scale`; infinite where it is not a number."""
    worst, size = float(difference.detach().abs().max()), float(scale.detach().abs().max())
    if worst != worst:
        return float("inf")
    return worst / size if size else worst
