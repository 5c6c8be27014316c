"""The feed-forward optimiser: a perceptron, the same for every coordinate, reads gradient, θ and momenta.

Metz et al., "Understanding and correcting pathologies in the training of learned optimizers" (2019); its
features, decays and scales are those of the authors' own library (learned_optimization, `MLPLOpt`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metalearn_core import Coordinatewise, ParameterLayout, Signal, State, UpdateRule, UsageError, hookimpl

TIMESCALES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


class MLPOptimizer(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − λ₁ d exp(λ₂ m), (d, m) = g(I⁽ᵗ⁾); v_β ← β v_β + (1 − β) ∇L for every β.

    φ: `network` (g). The columns of I: ∇L, θ and every v_β, each over the root of its mean square within
    the parameter tensor (and 10⁻⁵); then tanh(t/s − 1) for eleven timescales s from 1 to 10⁵.

    Args:
        hidden: the widths of g's hidden layers (ReLU).
        betas: the decays of the momenta v_β.
        step_scale: λ₁.
        exp_scale: λ₂.
    """

    uses_step = True

    def __init__(
        self,
        layout: ParameterLayout,
        hidden: Sequence[int] = (32, 32),
        betas: Sequence[float] = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999),
        step_scale: float = 0.001,
        exp_scale: float = 0.001,
    ) -> None:
        super().__init__()
        if not isinstance(hidden, list | tuple) or not all(type(w) is int and w > 0 for w in hidden):
            raise UsageError(f"hidden must be a list of widths >= 1, got {hidden!r}")
        if not isinstance(betas, list | tuple) or not all(
            type(b) in (int, float) and 0 <= b < 1 for b in betas
        ):
            raise UsageError(f"betas must be a list of numbers in [0, 1), got {betas!r}")
        for name, scale in (("step_scale", step_scale), ("exp_scale", exp_scale)):
            if type(scale) not in (int, float) or not 0 <= scale < math.inf:
                raise UsageError(f"{name} must be a number >= 0, got {scale!r}")
        self.sizes, self.betas, self.scales = layout.sizes, tuple(betas), (step_scale, exp_scale)
        self.network = Coordinatewise(2 + len(betas) + len(TIMESCALES), hidden, outputs=2)

    def init_state(self, theta: Tensor) -> State:
        return tuple(torch.zeros_like(theta) for _ in self.betas)

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        momenta = tuple(b * v + (1 - b) * signal.grad for b, v in zip(self.betas, state, strict=True))
        columns = [self._normalised(x) for x in (signal.grad, theta, *momenta)]
        columns += [torch.full_like(theta, math.tanh(signal.step / s - 1)) for s in TIMESCALES]
        direction, magnitude = self.network(columns)
        step_scale, exp_scale = self.scales
        return theta - step_scale * direction * torch.exp(exp_scale * magnitude), momenta

    def _normalised(self, x: Tensor) -> Tensor:
        parts = (part * (part.square().mean() + 1e-5).rsqrt() for part in torch.split(x, self.sizes))
        return torch.cat(list(parts))


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"mlp-optimizer": MLPOptimizer}
