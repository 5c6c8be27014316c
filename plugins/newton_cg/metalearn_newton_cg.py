"""Newton steps on the support loss, the linear system solved by a few conjugate gradients.

Martens, "Deep learning via Hessian-free optimization" (2010), Section 3: products with the Hessian, a damping
λ, and no matrix. A direction of no positive curvature is not followed. Inner clipping bounds products too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metalearn_core import ParameterLayout, Signal, State, UpdateRule, UsageError, hookimpl


class NewtonCG(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − α (∇²L + λI)⁻¹ ∇L, by K steps of conjugate gradients.   φ: α and log λ.

    Args:
        inner_lr: where α starts.
        damping: where λ starts.
        iterations: K.
    """

    uses_support = True

    def __init__(
        self, layout: ParameterLayout, inner_lr: float = 0.1, damping: float = 1.0, iterations: int = 3
    ) -> None:
        super().__init__()
        for name, value in (("inner_lr", inner_lr), ("damping", damping)):
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise UsageError(f"{name} must be a number > 0, got {value!r}")
        if type(iterations) is not int or iterations < 1:
            raise UsageError(f"iterations must be an integer >= 1, got {iterations!r}")
        self.iterations = iterations
        self.inner_lr = nn.Parameter(torch.tensor(float(inner_lr)))
        self.log_damping = nn.Parameter(torch.tensor(math.log(damping)))

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        support, damping = signal.support, self.log_damping.exp()

        def times(vector: Tensor) -> Tensor:
            slope = support.gradient(lambda at: support.gradient(support.loss, at) @ vector, theta)
            return slope + damping * vector

        # the solution is linear in the gradient: its size is taken out, or squares of it would overflow
        size = signal.grad.detach().abs().amax()
        size = torch.where(size > 0, size, 1)
        residual = signal.grad / size
        direction, found, square = residual, torch.zeros_like(theta), residual @ residual
        for _ in range(self.iterations):
            product = times(direction)
            curvature = direction @ product
            good = curvature > 1e-12 * (direction @ direction)
            step = torch.where(good, square / torch.where(good, curvature, 1), 0)
            found, residual = found + step * direction, residual - step * product
            before, square = square, residual @ residual
            direction = (
                residual + torch.where(before > 0, square / torch.where(before > 0, before, 1), 0) * direction
            )
        return theta - self.inner_lr * size * found, state


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"newton-cg": NewtonCG}
