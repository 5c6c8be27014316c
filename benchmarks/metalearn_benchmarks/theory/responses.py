"""More invariants: how a rule answers gradients that it is shown one after the other.

As in `invariants`, each function returns how far a rule breaks what it says, 0 where it holds. The
gradients are chosen freely, which stands for a task: some loss has them at the few points of a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from metalearn_benchmarks.theory.invariants import single_step
from metalearn_core import UpdateRule
from metalearn_core.testing.theory.invariants import relative
from metalearn_core.testing.theory.separation import Probe


def shown(rule: UpdateRule, theta: Tensor, grads: Sequence[Tensor], loss: float = 0.0) -> list[Tensor]:
    """θ⁽⁰⁾ … θ⁽ᵀ⁾ of a new inner loop that sees these gradients, and the same loss at each step."""
    thetas, state = [theta], rule.init_state(theta)
    for step, grad in enumerate(grads):
        theta, state = single_step(rule, theta, grad, step, state, loss)
        thetas.append(theta)
    return thetas


def steps_of(rule: UpdateRule, grads: Sequence[Tensor]) -> list[Tensor]:
    """The single steps from θ = 0."""
    return [after - before for before, after in pairwise(shown(rule, torch.zeros_like(grads[0]), grads))]


def is_blind_to_the_loss(rule: UpdateRule, probe: Probe) -> float:
    """Two tasks with the same gradients and other losses take the same path."""
    theta, grads = probe.normal(probe.n), [probe.normal(probe.n, salt=k + 1) for k in range(probe.steps)]
    ends = [shown(rule, theta, grads, loss)[-1] - theta for loss in (0.0, 2.0)]
    return relative(ends[0] - ends[1], torch.cat([*ends, theta]))


def is_new_after_zeros(rule: UpdateRule, probe: Probe) -> float:
    """From θ = 0, after gradients of zero, a step is the first one of a new inner loop."""
    later, fresh = _after_zeros(rule, probe)
    return relative(later - fresh, torch.cat([later, fresh]))


def is_no_longer_after_zeros(rule: UpdateRule, probe: Probe) -> float:
    """From θ = 0, after gradients of zero, a step is no longer than the first one of a new inner loop."""
    later, fresh = _after_zeros(rule, probe)
    return relative((later.abs() - fresh.abs()).clamp(min=0), torch.cat([later, fresh]))


def _after_zeros(rule: UpdateRule, probe: Probe) -> tuple[Tensor, Tensor]:
    grad = probe.normal(probe.n)
    *_, before, after = shown(rule, 0 * grad, [*[0 * grad] * probe.steps, grad])
    return after - before, shown(rule, before, [grad])[-1] - before


def stays_at_zero(rule: UpdateRule, probe: Probe) -> float:
    """From θ = 0, where every gradient is zero, it goes nowhere."""
    zero = torch.zeros(probe.n, dtype=torch.float64)
    return float(shown(rule, zero, [zero] * probe.steps)[-1].detach().abs().max())


def repeats_a_step(rule: UpdateRule, probe: Probe) -> float:
    """Where the gradient stays the same, so does the step."""
    steps = steps_of(rule, [probe.normal(probe.n)] * (probe.steps + 1))
    return relative(steps[-1] - steps[0], torch.cat(steps))


def shrinks(rule: UpdateRule, probe: Probe) -> float:
    """Where the gradient stays the same, no step is longer than the one before."""
    steps = steps_of(rule, [probe.normal(probe.n)] * (probe.steps + 1))
    excess = [(after.abs() - before.abs()).clamp(min=0) for before, after in pairwise(steps)]
    return relative(torch.cat(excess), torch.cat(steps))


def grows_at_first(rule: UpdateRule, probe: Probe) -> float:
    """Where the gradient stays the same, the second step is no shorter than the first."""
    first, second = steps_of(rule, [probe.normal(probe.n)] * 2)
    return relative((first.abs() - second.abs()).clamp(min=0), torch.cat([first, second]))


def divides_by_roots_of_the_time(rule: UpdateRule, probe: Probe) -> float:
    """Where the gradient stays the same, what it divides by is a√(t + 1) + b for some a and b."""
    d = [1 / step for step in steps_of(rule, [probe.normal(probe.n)] * 3)]
    bent = (2**0.5 - 1) * (d[2] - d[1]) - (3**0.5 - 2**0.5) * (d[1] - d[0])
    return relative(bent / d[0], torch.ones(1))


def carries_theta_and_time_alone(rule: UpdateRule, probe: Probe) -> float:
    """Two pasts that come to the same θ at the same t are followed by the same step."""
    theta, grad, ends = probe.normal(probe.n), probe.normal(probe.n, salt=1), []
    for past in (2, 3):
        state = rule.init_state(theta)
        for step in range(probe.steps):
            seen = probe.normal(probe.n, salt=past + 2 * step)
            _, state = single_step(rule, theta, seen, step, state, 0.0)
        ends.append(single_step(rule, theta, grad, probe.steps, state, 0.0)[0] - theta)
    return relative(ends[0] - ends[1], torch.cat([*ends, theta]))


def averages_signs(rule: UpdateRule, probe: Probe) -> float:
    """On gradients ±1 it steps along the average of the signs, weighted by 1, β, β² …, for one β.

    So (+) gives s, (−, +) gives s(1 − β)/(1 + β) and (−, −, +) gives s(1 − β − β²)/(1 + β + β²).
    """
    one = torch.ones(probe.n, dtype=torch.float64)
    first, second, third = (steps_of(rule, [*[-one] * k, one])[-1] for k in range(3))
    d, n = first + second, first - second  # β = n/d
    bent = third * (d**2 + n * d + n**2) - first * (d**2 - n * d - n**2)
    return relative(bent / first.abs() ** 3, torch.ones(1))


def is_affine_in_a_smaller_gradient(rule: UpdateRule, probe: Probe) -> float:
    """Its second step is affine in a first gradient that is no larger than the second one."""
    one = torch.ones(probe.n, dtype=torch.float64)
    small = probe.normal(probe.n).abs().clamp(max=1.0)
    below, none, above = (steps_of(rule, [k * small, one])[1] for k in (-1, 0, 1))
    return relative(below + above - 2 * none, torch.cat([below, none, above]))


def divides_by_roots_of_squares(rule: UpdateRule, probe: Probe) -> float:
    """After gradients ±x and 1, what the two steps together divide by is concave in x²: at 0, 1 and 9."""
    one, inverses = torch.ones(probe.n, dtype=torch.float64), []
    for size in (0, 1, 3):
        both = sum(steps_of(rule, [sign * size * one, one])[1] for sign in (-1, 1))
        inverses.append(1 / torch.as_tensor(both).abs())
    chord = (8 * inverses[0] + inverses[2]) / 9
    return relative((chord - inverses[1]).clamp(min=0) / inverses[1], torch.ones(1))


def answers_as_momentum(rule: UpdateRule, probe: Probe) -> float:
    """How one gradient moves θ, then gradients of zero: with e = d₂ − d₁ + (1 − p)d₁ for d after one and two
    steps, and p what is left of θ after a step, d₁(d₃ − d₂ + (1 − p)d₂) = e(d₂ − d₁): both are β(d₂ − d₁)d₁.
    """
    one = torch.ones(probe.n, dtype=torch.float64)
    left = shown(rule, one, [0 * one])[-1]
    _, d1, d2, d3 = shown(rule, 0 * one, [one, 0 * one, 0 * one])
    e2, e3 = d2 - d1 + (1 - left) * d1, d3 - d2 + (1 - left) * d2
    return relative(d1 * e3 - e2 * (d2 - d1), torch.cat([d1, d2, d3]) ** 2)


def answers_as_nesterov(rule: UpdateRule, probe: Probe) -> float:
    """One gradient is felt in three steps as a(1 + β), aβ², aβ³, so that k₀k₂² = k₁²(k₁ + k₂)."""
    one = torch.ones(probe.n, dtype=torch.float64)
    k0, k1, k2 = steps_of(rule, [one, 0 * one, 0 * one])
    return relative((k0 * k2**2 - k1**2 * (k1 + k2)) / k0.abs() ** 3, torch.ones(1))


def is_continuous_at_zero(rule: UpdateRule, probe: Probe) -> float:
    """Gradients of 10⁻³⁰ of either sign lead to about the same place: the step has no jump there."""
    tiny = 1e-30 * torch.ones(probe.n, dtype=torch.float64)
    ends = [shown(rule, 0 * tiny, [sign * tiny])[-1] for sign in (-1, 1)]
    return float((ends[0] - ends[1]).detach().abs().max())


def has_a_monotone_input_gate(rule: UpdateRule, probe: Probe) -> float:
    """From θ = 0, on one task, −θ′/∇ at ∇ = 2 lies between what it is at 1 and at 3."""
    grads = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    low, middle, high = (-steps_of(rule, [grads])[0] / grads).detach().tolist()
    return float(max(middle - max(low, high), min(low, high) - middle, 0.0))
