"""Proto-MAML: MAML whose head starts from the prototypes of the classes.

Triantafillou et al., "Meta-Dataset" (2020), Section 3: the head's rows are wₖ = 2cₖ and bₖ = −‖cₖ‖², where cₖ
is the mean embedding of class k (Snell et al., 2017). Meta-gradients go through the start under both orders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import grad

from metalearn_core import ParameterLayout, Signal, State, SupportSet, UpdateRule, UsageError, hookimpl


class ProtoMAML(UpdateRule):
    """w⁽⁰⁾ₖ = 2cₖ, b⁽⁰⁾ₖ = −‖cₖ‖²;  θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − α ∇L(θ⁽ᵗ⁾).   φ: α, if it is learned.

    The head is the last linear layer, with a bias; targets are classes 0 ... ways − 1.

    Args:
        inner_lr: α, or where it starts.
        learn_lr: whether α is learned.
    """

    def __init__(self, layout: ParameterLayout, inner_lr: float = 0.01, learn_lr: bool = False) -> None:
        super().__init__()
        if type(inner_lr) not in (int, float) or not 0 < inner_lr < math.inf:
            raise UsageError(f"inner_lr must be a number > 0, got {inner_lr!r}")
        if type(learn_lr) is not bool:
            raise UsageError(f"learn_lr must be true or false, got {learn_lr!r}")
        if (
            len(layout.shapes) < 2
            or layout.shapes[-1] != layout.shapes[-2][:1]
            or len(layout.shapes[-2]) != 2
        ):
            last = ", ".join(f"{n} {s}" for n, s in zip(layout.names[-2:], layout.shapes[-2:], strict=True))
            raise UsageError(f"proto-maml: a head must come last, a weight (ways, d) and a bias; got {last}")
        self.ways, self.width = layout.shapes[-2]
        self.inner_lr = nn.Parameter(torch.tensor(float(inner_lr)), requires_grad=learn_lr)

    def start(self, theta: Tensor, support: SupportSet) -> Tensor:
        targets = support.batch.targets
        classes = torch.arange(self.ways, device=theta.device)
        mine = (targets.unsqueeze(-1) == classes).to(theta.dtype)
        if support.batch.mask is not None:
            mine = mine * support.batch.mask.unsqueeze(-1)

        def own_logits(at: Tensor) -> Tensor:
            total: Tensor = (support.predict(at) * mine).sum()
            return total

        # logits are linear in the head, so its derivative is the sum of each class's embeddings; no gradient
        # of a loss, and so not the loop's to make a constant or to clip
        head = self.ways * self.width
        sums: Tensor = grad(own_logits)(theta)[-head - self.ways : -self.ways].view(self.ways, self.width)
        prototypes = sums / mine.sum(0).clamp(min=1).unsqueeze(-1)
        return torch.cat([theta[: -head - self.ways], 2 * prototypes.flatten(), -prototypes.square().sum(1)])

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        return theta - self.inner_lr * signal.grad, state


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"proto-maml": ProtoMAML}
