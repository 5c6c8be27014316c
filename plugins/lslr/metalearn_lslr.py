"""LSLR: a learning rate for each layer and each inner step.

Antoniou, Edwards and Storkey, "How to train your MAML" (2019), Section 4: the inner step of their Equation 1
with an α of its own for each layer and step. As in their program, a layer is a parameter tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metalearn_core import ParameterLayout, Signal, State, UpdateRule, UsageError, hookimpl


class LSLR(UpdateRule):
    """θₗ⁽ᵗ⁺¹⁾ = θₗ⁽ᵗ⁾ − αₗ⁽ᵗ⁾ ∇ₗL(θ⁽ᵗ⁾), l a parameter tensor.   φ: `inner_lrs`, `[steps, tensors]`.

    It starts as gradient descent, where α is positive.

    Args:
        inner_lr: where every α starts.
        steps: how many inner steps have rates of their own; later steps share the last one's.
    """

    uses_step = True
    elementwise = True
    owner: Tensor

    def __init__(self, layout: ParameterLayout, inner_lr: float = 0.01, steps: int = 5) -> None:
        super().__init__()
        if isinstance(inner_lr, bool) or not isinstance(inner_lr, int | float) or not math.isfinite(inner_lr):
            raise UsageError(f"inner_lr must be a number, got {inner_lr!r}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise UsageError(f"steps must be an integer >= 1, got {steps!r}")
        self.starts_as_descent = inner_lr > 0
        self.inner_lrs = nn.Parameter(torch.full((steps, len(layout.names)), float(inner_lr)))
        self.register_buffer("owner", layout.owner, persistent=False)

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        rates = self.inner_lrs[min(signal.step, len(self.inner_lrs) - 1)]
        return theta - rates[self.owner] * signal.grad, state


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"lslr": LSLR}
