"""Invariants: properties that a rule keeps for every φ.

Each function takes a rule and a probe, tries the rule on tasks whose support gradient is known, and returns
how far the rule breaks the invariant: 0 where it holds.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from metalearn_core import Signal, UpdateRule, adapt
from metalearn_core.testing import Problem
from metalearn_core.testing.problems import Architecture
from metalearn_core.testing.theory.invariants import relative
from metalearn_core.testing.theory.separation import Probe, path


def reaches_no_further(rule: UpdateRule, probe: Probe) -> float:
    """θ′ lies between the negative and the positive parts of θ and −∇, summed: fθ − i∇ with f, i ∈ (0, 1)."""
    grad = probe.normal(probe.n)
    now = path(rule, _sometimes_zero(probe), grad, probe.steps)
    excess = torch.zeros(())
    for before, after in pairwise(now):
        high = before.clamp(min=0) + (-grad).clamp(min=0)
        low = before.clamp(max=0) + (-grad).clamp(max=0)
        excess = torch.maximum(excess, torch.maximum(after - high, low - after).max())
    return relative(excess, torch.cat([*now, grad]))


def treats_coordinates_alike(rule: UpdateRule, probe: Probe) -> float:
    """Coordinates with the same θ and the same gradient stay the same, also those of two tensors."""
    theta, grad = _twins(probe)
    last = path(rule, theta, grad, probe.steps)[-1]
    return relative(last[0] - last[-1], last)


def is_blind_to_theta(rule: UpdateRule, probe: Probe) -> float:
    """Where the gradient is zero, where it goes does not depend on θ."""
    nothing = torch.zeros(probe.n, dtype=torch.float64)
    ways = []
    for salt in (0, 1):
        now = path(rule, probe.normal(probe.n, salt=salt), nothing, probe.steps)
        ways.append(now[-1] - now[0])
    return relative(ways[0] - ways[1], torch.cat([*ways, probe.normal(probe.n)]))


def is_moved_by_gradients_alone(rule: UpdateRule, probe: Probe) -> float:
    """On two tasks of the same constant gradient it goes the same way, wherever it starts."""
    grad, ways = probe.normal(probe.n, salt=2), []
    for salt in (0, 1):
        now = path(rule, probe.normal(probe.n, salt=salt), grad, probe.steps)
        ways.append(now[-1] - now[0])
    return relative(ways[0] - ways[1], torch.cat([*ways, probe.normal(probe.n)]))


def can_be_restarted(rule: UpdateRule, probe: Probe) -> float:
    """Two steps are one step, and one more of a new inner loop: nothing but θ is carried on."""
    problem = Problem(Architecture((2, probe.n, 1)), seed=probe.seed)
    layout_size = problem.learner.layout.size
    if rule_size(rule) not in (None, layout_size):
        return _restarted_on_a_slope(rule, probe)
    support = problem.task[0].support
    with torch.no_grad():
        once = adapt(rule, problem.learner, problem.theta, support, steps=1)
        again = adapt(rule, problem.learner, once, support, steps=1)
        twice = adapt(rule, problem.learner, problem.theta, support, steps=2)
    return relative(again - twice, torch.cat([once, twice]))


def is_affine(rule: UpdateRule, probe: Probe) -> float:
    """From one θ, the way it goes on slope a + b and on slope 0 is that on a and on b together."""
    theta, a, b = (probe.normal(probe.n, salt=salt) for salt in range(3))
    ways = [path(rule, theta, g, probe.steps)[-1] - theta for g in (a + b, torch.zeros_like(a), a, b)]
    return relative(ways[0] + ways[1] - ways[2] - ways[3], torch.cat([*ways, theta]))


def stands_still_at_zero(rule: UpdateRule, probe: Probe) -> float:
    """A step with gradient zero changes nothing, whatever came before it."""
    theta, state = probe.normal(probe.n), rule.init_state(probe.normal(probe.n))
    for step in range(probe.steps):
        grad = probe.normal(probe.n, salt=1) if step < probe.steps - 1 else torch.zeros_like(theta)
        before = theta
        theta, state = single_step(rule, theta, grad, step, state)
    return relative(theta - before, torch.cat([theta, before]))


def sees_signs_alone(rule: UpdateRule, probe: Probe) -> float:
    """Three times the gradient changes nothing."""
    theta, grad = probe.normal(probe.n), probe.normal(probe.n, salt=1)
    ways = [path(rule, theta, k * grad, probe.steps)[-1] - theta for k in (1, 3)]
    return relative(ways[0] - ways[1], torch.cat(ways))


def decays_at_zero(rule: UpdateRule, probe: Probe) -> float:
    """Where the gradient is zero, every coordinate shrinks: over the reals σ < 1. 1 where one does not."""
    theta = probe.normal(probe.n)
    now = path(rule, theta, torch.zeros_like(theta), probe.steps)[-1]
    return float(not bool((now.abs() < theta.abs()).all()))


def bends_little_in_theta(rule: UpdateRule, probe: Probe) -> float:
    """How much another gradient changes the step, as a part of θ, tends to 0 as θ grows.

    A network whose activations are Lipschitz is so in θ and ∇ together: the change is bounded.
    """
    theta = torch.full((probe.n,), 1e9 * (1 + _steepness(rule)), dtype=torch.float64)
    ends = []
    for grad in (probe.normal(probe.n, salt=1), probe.normal(probe.n, salt=2)):
        # the same loss: ⟨∇, θ⟩ less a constant
        ends.append(single_step(rule, theta, grad, 0, rule.init_state(theta), loss=0.0)[0])
    return relative(ends[0] - ends[1], theta)


def bends_little_in_time(rule: UpdateRule, probe: Probe) -> float:
    """How much another t changes the step, as a part of the gradient, tends to 0 as the gradient grows."""
    theta = probe.normal(probe.n)
    grad = 1e9 * (1 + _steepness(rule)) * probe.normal(probe.n, salt=1).sign()
    ends = [single_step(rule, theta, grad, step, rule.init_state(theta))[0] for step in (0, 1)]
    return relative(ends[0] - ends[1], grad)


def grows_slower_than_gradients(rule: UpdateRule, probe: Probe) -> float:
    """The step, as a part of the gradient, tends to 0 as the gradient grows: it sees log|∇|."""
    theta = probe.normal(probe.n)
    grad = 1e9 * (1 + _steepness(rule)) * probe.normal(probe.n, salt=1).sign()
    after, _ = single_step(rule, theta, grad, 0, rule.init_state(theta))
    return relative(after - theta, grad)


def rule_size(rule: UpdateRule) -> int | None:
    """n, of a rule that has a parameter for each coordinate."""
    sizes = [p.numel() for name, p in rule.named_parameters() if name in ("alpha", "inner_lr") and p.ndim]
    return sizes[0] if sizes else None


def _restarted_on_a_slope(rule: UpdateRule, probe: Probe) -> float:
    theta, grad = probe.normal(probe.n), probe.normal(probe.n, salt=1)
    _, once, twice = path(rule, theta, grad, 2)
    again = path(rule, once, grad, 1)[-1]
    return relative(again - twice, torch.cat([once, twice]))


def single_step(
    rule: UpdateRule, theta: Tensor, grad: Tensor, step: int, state: object, loss: float | None = None
) -> tuple[Tensor, object]:
    """One step where the gradient is `grad` and the loss ⟨grad, θ⟩ or as given."""
    value = grad @ theta if loss is None else torch.full_like(theta[0], loss)
    with torch.no_grad():
        return rule.update(theta, Signal(grad, value, step), state)


def _steepness(rule: UpdateRule) -> float:
    """The product of the norms of the network's weights, and of the largest α; 0 without a network."""
    network = getattr(rule, "network", None)
    if network is None:
        return 0.0
    found = 1.0
    for name, parameter in network.named_parameters():
        found *= float(parameter.detach().norm()) if name.endswith("weight") else 1.0
    return found * (1 + float(getattr(rule, "alpha", torch.ones(1)).detach().abs().max()))


def _sometimes_zero(probe: Probe) -> Tensor:
    """θ, for every second seed 0: there nothing hides the step."""
    return probe.normal(probe.n, salt=3) * (probe.seed % 2)


def _twins(probe: Probe) -> tuple[Tensor, Tensor]:
    theta, grad = probe.normal(probe.n), probe.normal(probe.n, salt=1)
    theta[-1], grad[-1] = theta[0], grad[0]
    return theta, grad
