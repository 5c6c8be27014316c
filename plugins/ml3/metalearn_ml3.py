"""ML3: gradient descent on a loss that is learned.

Bechtle, Molchanov, Chebotar, Grefenstette, Righetti, Sukhatme and Meier, "Meta-learning via learned loss"
(2021), Equation 3 and Algorithm 1. Here the loss network sees each output with its target, pair by pair, so
that it fits any number of outputs; classes are compared as one-hot vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metalearn_core import ParameterLayout, Signal, State, UpdateRule, UsageError, hookimpl


class ML3(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − α ∇_θ mean M_φ(f_θ(x), y).   φ: α and the network M.

    Under the first order the gradient is a constant, for φ too: M is learned under the second order alone.

    Args:
        hidden: the width of M's two hidden layers.
        inner_lr: where α starts.
    """

    uses_support = True

    def __init__(self, layout: ParameterLayout, hidden: int = 20, inner_lr: float = 0.01) -> None:
        super().__init__()
        if type(hidden) is not int or hidden < 1:
            raise UsageError(f"hidden must be an integer >= 1, got {hidden!r}")
        if type(inner_lr) not in (int, float) or not 0 < inner_lr < math.inf:
            raise UsageError(f"inner_lr must be a number > 0, got {inner_lr!r}")
        self.inner_lr = nn.Parameter(torch.tensor(float(inner_lr)))
        self.network = nn.Sequential(
            nn.Linear(2, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU(),
            nn.Linear(hidden, 1), nn.Softplus(),
        )  # fmt: skip

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        support = signal.support

        def learned_loss(at: Tensor) -> Tensor:
            prediction, targets = support.predict(at), support.batch.targets
            if not targets.is_floating_point():
                classes = torch.arange(prediction.shape[-1], device=targets.device)
                targets = (targets.unsqueeze(-1) == classes).to(prediction.dtype)
            losses = self.network(torch.stack([prediction, targets], -1)).squeeze(-1).flatten(1).mean(1)
            mask = support.batch.mask
            return losses.mean() if mask is None else torch.where(mask, losses, 0).sum() / mask.sum()

        return theta - self.inner_lr * support.gradient(learned_loss, theta), state


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"ml3": ML3}
