"""Invariants about what a rule can know of its past: one average, or nothing where nothing has moved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from metalearn_benchmarks.theory.invariants import single_step
from metalearn_core import UpdateRule
from metalearn_core.testing.theory.invariants import relative
from metalearn_core.testing.theory.separation import Probe

NOW = 0.3
"""The gradient that both pasts are followed by."""


def knows_one_average(rule: UpdateRule, probe: Probe) -> float:
    """Of two steps it knows t, θ, and one average, of the gradients or of the updates, with any weights.

    A rule with such an average must have that one as its state. One without must take another step after
    two pasts whose average is the same, whatever the weights.
    """
    if hasattr(rule, "history"):
        return _strays_from_its_average(rule, probe)
    return min(_forgets_pasts(rule, ("gradients", "updates")))


def knows_one_average_of_gradients(rule: UpdateRule, probe: Probe) -> float:
    """Of two steps it knows one average of the gradients, with any weights."""
    if hasattr(rule, "history"):
        return _strays_from_its_average(rule, probe)
    return min(_forgets_pasts(rule, ("gradients",)))


def _strays_from_its_average(rule: Any, probe: Probe) -> float:
    """How far the state after two steps is from the average of Equation 3.6, or of the authors' program."""
    theta, seen, state = probe.normal(probe.n), [], rule.init_state(probe.normal(probe.n))
    if rule.history == "none":
        return float(state != ())
    for step in range(2):
        grad = probe.normal(probe.n, salt=step + 1)
        moved, state = single_step(rule, theta, grad, step, state, 0.0)
        seen.append(grad if rule.history == "grad" else moved - theta)
        theta = moved
    first = rule.beta * seen[0] * (1.0 if rule.as_program else 1 - rule.beta)
    return relative(state - first - (1 - rule.beta) * seen[1], torch.cat([*seen, theta]))


def _forgets_pasts(rule: UpdateRule, kinds: tuple[str, ...]) -> Iterator[float]:
    """For each kind of average and weights: how much the next steps differ after two pasts that it is
    blind to.
    """
    reference = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    after = _next_step(rule, reference)
    for kind in kinds:
        for weight in torch.linspace(0, 1, 21, dtype=torch.float64):
            other = _another_past(rule, reference, kind, float(weight))
            if other is None:
                yield 0.0  # it was not shown that there is one
                continue
            then = _next_step(rule, other)
            yield relative(then - after, torch.cat([then, after]))


def _another_past(rule: UpdateRule, past: Tensor, kind: str, weight: float) -> Tensor | None:
    """A past of which one gradient is twice as large, and the average is the same.

    The other gradient is looked for among many at once: each is a coordinate of its own.
    """
    target = float(_average(rule, past, kind, weight))
    low, high = -8.0, 8.0
    for _ in range(6):
        tried = torch.linspace(low, high, 2001, dtype=torch.float64)
        fixed = torch.full_like(tried, 2 * float(past[0 if weight <= 0.5 else 1]))
        pasts = torch.stack([fixed, tried] if weight <= 0.5 else [tried, fixed])
        above = _average(rule, pasts, kind, weight) >= target
        crossed = (above[1:] != above[:-1]).nonzero()
        if not len(crossed):
            return None
        low, high = tried[crossed[0]].item(), tried[crossed[0] + 1].item()
    return pasts[:, crossed[0]]


def _average(rule: UpdateRule, past: Tensor, kind: str, weight: float) -> Tensor:
    """Weight · first + (1 − weight) · second, of gradients or of updates."""
    pair = past if kind == "gradients" else _updates(rule, past)[0]
    return weight * pair[0] + (1 - weight) * pair[1]


def _updates(rule: UpdateRule, past: Tensor) -> tuple[Tensor, Any]:
    """The updates from θ = 0, and the state after them."""
    theta = torch.zeros_like(past[0])
    state, updates = rule.init_state(theta), []
    for step, grad in enumerate(past):
        moved, state = single_step(rule, theta, grad, step, state, 0.0)
        updates.append(moved - theta)
        theta = moved
    return torch.stack(updates), state


def _next_step(rule: UpdateRule, past: Tensor) -> Tensor:
    """The step that follows a past, from θ = 0: both pasts can be started so that they come to the same θ."""
    theta = torch.zeros_like(past[0])
    return single_step(rule, theta, torch.full_like(theta, NOW), 2, _updates(rule, past)[1], 0.0)[0]


def is_new_where_nothing_moved(rule: UpdateRule, probe: Probe) -> float:
    """A first step that moves nothing leaves it as it was: the next step is one of a new inner loop.

    Its memory is an average of updates. Where no gradient leads to such a first step, nothing is said.
    """
    still = _gradient_without_a_step(rule)
    if still is None:
        return 0.0
    zero = torch.zeros_like(still)
    theta, state = single_step(rule, zero, still, 0, rule.init_state(zero), 0.0)
    grad = torch.ones_like(still) + probe.normal(1).abs()
    later = single_step(rule, theta, grad, 1, state, 0.0)[0] - theta
    fresh = single_step(rule, theta, grad, 0, rule.init_state(theta), 0.0)[0] - theta
    return relative(later - fresh, torch.cat([later, fresh]))


def _gradient_without_a_step(rule: UpdateRule) -> Tensor | None:
    """A gradient `[1]`, as large as there is, whose first step from θ = 0 is 0; or None."""
    low, high = -3.0, 3.0
    for _ in range(8):
        tried = torch.linspace(low, high, 2001, dtype=torch.float64)
        zero = torch.zeros_like(tried)
        moved = single_step(rule, zero, tried, 0, rule.init_state(zero), 0.0)[0]
        if len(nothing := (moved == 0).nonzero()):
            return tried[nothing[-1]]
        crossed = ((moved[1:] > 0) != (moved[:-1] > 0)).nonzero()
        if not len(crossed):
            return None
        low, high = tried[crossed[0]].item(), tried[crossed[0] + 1].item()
    return tried[crossed[0]]
