"""Meta-Curvature: learned matrices transform the gradient along each of its axes.

Park and Oliva, "Meta-Curvature" (2019), Section 3: MC(G) = G ×₃ M_f ×₂ M_i ×₁ M_o, and θ − α MC(∇L) as
the inner step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metalearn_core import ParameterLayout, Signal, State, UpdateRule, UsageError, hookimpl

AXES = ("out", "in", "kernel")


class MetaCurvature(UpdateRule):
    """θₗ⁽ᵗ⁺¹⁾ = θₗ⁽ᵗ⁾ − α ∇ₗL ×₁ M_o ×₂ M_i ×₃ M_f, where (G ×₁ M)ₚᵢⱼ = Σₒ Mₚₒ Gₒᵢⱼ.

    φ: for each parameter tensor l, `curvatures.l`: `out`, `in` and `kernel`. A linear layer's weight has no
    `kernel`, a vector `out` alone, a scalar one of size 1; the axes from the third on are taken as one.
    It starts as gradient descent, each M being the identity.

    Args:
        inner_lr: α, which is kept: the matrices learn any other.
    """

    starts_as_descent = True

    def __init__(self, layout: ParameterLayout, inner_lr: float = 0.01) -> None:
        super().__init__()
        if isinstance(inner_lr, bool) or not isinstance(inner_lr, int | float) or not 0 < inner_lr < math.inf:
            raise UsageError(f"inner_lr must be a number > 0, got {inner_lr!r}")
        self.layout, self.inner_lr = layout, float(inner_lr)
        self.axes = [(*shape[:2], math.prod(shape[2:]))[: max(1, len(shape))] for shape in layout.shapes]
        self.curvatures: Any = nn.ModuleList(
            nn.ParameterDict({name: torch.eye(n) for name, n in zip(AXES, axes, strict=False)})
            for axes in self.axes
        )

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        parts = []
        grads = self.layout.unflatten(signal.grad).values()
        for grad, axes, curvature in zip(grads, self.axes, self.curvatures, strict=True):
            transformed = grad.reshape(axes)
            for name in AXES[: len(axes)]:
                # the first axis goes, a new last one comes: after all of them the order is the old one
                transformed = torch.tensordot(transformed, curvature[name], dims=([0], [1]))
            parts.append(transformed.reshape(-1))
        return theta - self.inner_lr * torch.cat(parts), state


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"meta-curvature": MetaCurvature}
