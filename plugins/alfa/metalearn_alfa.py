"""ALFA: a network generates the learning rates and weight decays of each inner step.

Baik, Choi, Choi, Kim and Lee, "Meta-Learning with Adaptive Hyperparameters" (2020), Section 3, with the
multipliers a and b for each step and layer that the authors' program has (there β is 1 − b ⊙ g).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metalearn_core import ParameterLayout, Signal, State, UpdateRule, UsageError, hookimpl


class ALFA(UpdateRule):
    """θₗ⁽ᵗ⁺¹⁾ = βₗ⁽ᵗ⁾ θₗ⁽ᵗ⁾ − αₗ⁽ᵗ⁾ ∇ₗL, l a parameter tensor, (α, β)⁽ᵗ⁾ = (a, b)⁽ᵗ⁾ ⊙ g(τ⁽ᵗ⁾).

    τ⁽ᵗ⁾ are the means of ∇ₗL and of θₗ, for every l. φ: the network g and its multipliers `a` and `b`,
    `[steps, tensors]`. It starts as gradient descent: a = α, b = 1 − αλ, and g = 1 + `left` − `right`, two
    perceptrons with the same weights at first. Together these are one of twice the width, all of whose
    weights have a gradient from the first step on, which weights of 0 would not give.

    Args:
        inner_lr: where every α starts.
        weight_decay: λ of where every β starts, 1 − αλ (the authors' program: 0.0005).
        steps: how many inner steps have multipliers of their own; later steps share the last one's.
        hidden: the width of each half of g's hidden layer; by default 2N for N tensors, as the paper has it.
    """

    uses_step = True
    owner: Tensor

    def __init__(
        self,
        layout: ParameterLayout,
        inner_lr: float = 0.01,
        weight_decay: float = 0.0,
        steps: int = 5,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        for name, number in (("inner_lr", inner_lr), ("weight_decay", weight_decay)):
            if type(number) not in (int, float) or not 0 <= number < math.inf:
                raise UsageError(f"{name} must be a number >= 0, got {number!r}")
        for name, count in (("steps", steps), ("hidden", 1 if hidden is None else hidden)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise UsageError(f"{name} must be an integer >= 1, got {count!r}")
        self.starts_as_descent = inner_lr > 0 and weight_decay == 0
        tensors, self.sizes = len(layout.names), layout.sizes
        width = 2 * tensors if hidden is None else hidden
        self.left = nn.Sequential(nn.Linear(2 * tensors, width), nn.ReLU(), nn.Linear(width, 2 * tensors))
        self.right = copy.deepcopy(self.left)
        self.a = nn.Parameter(torch.full((steps, tensors), float(inner_lr)))
        self.b = nn.Parameter(torch.full((steps, tensors), 1 - inner_lr * weight_decay))
        self.register_buffer("owner", layout.owner, persistent=False)

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        parts = (*torch.split(signal.grad, self.sizes), *torch.split(theta, self.sizes))
        tau = torch.stack([part.mean() for part in parts])
        alpha, beta = (1 + (self.left(tau) - self.right(tau))).chunk(2)
        step = min(signal.step, len(self.a) - 1)
        alpha, beta = self.a[step] * alpha, self.b[step] * beta
        return beta[self.owner] * theta - alpha[self.owner] * signal.grad, state


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"alfa": ALFA}
