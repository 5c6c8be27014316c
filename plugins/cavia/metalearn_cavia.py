"""CAVIA: context parameters adapt to a task, all others are shared by the tasks.

Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson, "Fast context adaptation via meta-learning" (2019),
Equations 3 and 4. The contexts are parameters of the base-learner, say a vector beside its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metalearn_core import ParameterLayout, Signal, State, SupportSet, UpdateRule, UsageError, hookimpl


class CAVIA(UpdateRule):
    """c⁽⁰⁾ = 0;  c⁽ᵗ⁺¹⁾ = c⁽ᵗ⁾ − α ∇_c L(c⁽ᵗ⁾, θ);  all else of θ stays as it is.   φ: α, if it is learned.

    Args:
        contexts: the contexts are the parameters whose names contain this.
        inner_lr: α, or where it starts.
        learn_lr: whether α is learned; the paper keeps it.
    """

    elementwise = True
    is_context: Tensor

    def __init__(
        self,
        layout: ParameterLayout,
        contexts: str = "context",
        inner_lr: float = 1.0,
        learn_lr: bool = False,
    ) -> None:
        super().__init__()
        if type(inner_lr) not in (int, float) or not 0 < inner_lr < math.inf:
            raise UsageError(f"inner_lr must be a number > 0, got {inner_lr!r}")
        if type(learn_lr) is not bool:
            raise UsageError(f"learn_lr must be true or false, got {learn_lr!r}")
        chosen = torch.tensor([bool(contexts) and str(contexts) in name for name in layout.names])
        if not chosen.any():
            names = ", ".join(layout.names)
            raise UsageError(f"contexts: no parameter's name contains {contexts!r}; there are {names}")
        self.inner_lr = nn.Parameter(torch.tensor(float(inner_lr)), requires_grad=learn_lr)
        self.register_buffer("is_context", chosen[layout.owner], persistent=False)

    def start(self, theta: Tensor, support: SupportSet) -> Tensor:
        return torch.where(self.is_context, 0, theta)

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        return theta - self.inner_lr * torch.where(self.is_context, signal.grad, 0), state


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"cavia": CAVIA}
