"""Rules on the map that no plugin ships, and shipped rules with their options as attributes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metalearn_core import ParameterLayout, Signal, UpdateRule, make_rule


def descent(layout: ParameterLayout, inner_lr: float, **options: Any) -> UpdateRule:
    """Make the rule `gradient-descent`, with its momentum and its weight decay as attributes."""
    rule: Any = make_rule("gradient-descent", layout, inner_lr=inner_lr, **options)
    rule.momentum, rule.weight_decay = options.get("momentum", 0.0), options.get("weight_decay", 0.0)
    return rule  # type: ignore[no-any-return]


def damped_descent(layout: ParameterLayout, inner_lr: float, momentum: float) -> UpdateRule:
    """Make momentum β with dampening β: torch's v ← βv + (1 − β)∇, where the first v is the gradient."""
    return descent(layout, inner_lr, momentum=momentum, dampening=momentum)


def averaged_descent(layout: ParameterLayout, inner_lr: float, lambd: float, power: float) -> UpdateRule:
    """Make averaged SGD, with its decay and the step sizes of its first five steps as attributes."""
    rule: Any = make_rule(
        "gradient-descent", layout, optimizer="asgd", inner_lr=inner_lr, lambd=lambd, alpha=power
    )
    rule.decay = lambd
    rule.inner_lrs = torch.tensor(
        [inner_lr / (1 + lambd * inner_lr * t) ** power for t in range(5)], dtype=torch.float64
    )
    return rule  # type: ignore[no-any-return]


class Schedule(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − αₜ ∇L(θ⁽ᵗ⁾).   φ: `inner_lrs`, one for each step."""

    uses_step = True
    elementwise = True
    coordinatewise = True

    def __init__(self, layout: ParameterLayout, length: int = 5) -> None:
        super().__init__()
        self.inner_lrs = nn.Parameter(0.5 * torch.rand(length))

    def update(self, theta: Tensor, signal: Signal, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return theta - self.inner_lrs[signal.step] * signal.grad, state


class ExponentialAverage(UpdateRule):
    """h⁽ᵗ⁺¹⁾ = β h⁽ᵗ⁾ + (1 − β) ∇L(θ⁽ᵗ⁾)   (Eq. 3.6),   θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − α h⁽ᵗ⁺¹⁾."""

    elementwise = True
    coordinatewise = True

    def __init__(self, layout: ParameterLayout, inner_lr: float = 0.1, beta: float = 0.9) -> None:
        super().__init__()
        self.inner_lr, self.beta = inner_lr, beta

    def init_state(self, theta: Tensor) -> Tensor:
        return torch.zeros_like(theta)

    def update(self, theta: Tensor, signal: Signal, state: Tensor) -> tuple[Tensor, Tensor]:
        average = self.beta * state + (1 - self.beta) * signal.grad
        return theta - self.inner_lr * average, average
