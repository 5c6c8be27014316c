"""Gradient descent, the rule of MAML (Finn et al., 2017).

Huisman, Plaat and van Rijn (2022), Equation 3.1: θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − α ∇L(θ⁽ᵗ⁾). With α ∈ Rⁿ learned it
is Meta-SGD (Li et al., 2017); with another optimiser, that optimiser's own steps from fresh state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metalearn_core import (
    ParameterLayout,
    Signal,
    State,
    TwinOptimizer,
    UpdateRule,
    UsageError,
    hookimpl,
    unknown,
)

LEARN_LR = ("none", "scalar", "tensor", "parameter")


class GradientDescent(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − α ∇L(θ⁽ᵗ⁾)   (Equation 3.1).   φ: `inner_lr` where it is learned.

    Args:
        inner_lr: α, or where it starts.
        learn_lr: `"none"` keeps α; learned are one α (`"scalar"`), one for each parameter tensor
            (`"tensor"`), or one for each coordinate, α ∈ Rⁿ (`"parameter"`: Meta-SGD).
        optimizer: `"sgd"`, `"adam"`, `"adamax"`, `"rmsprop"`, `"rprop"`, `"adagrad"`, `"adadelta"` or
            `"asgd"`; its steps are those of `torch.optim`, differentiable.
        options: the optimiser's own, such as `momentum` or `betas`.

    Raises:
        UsageError: for an unknown option or value, and for a learned α with `rprop` or `asgd`,
            whose steps `higher` does not differentiate for it.

    Under the second order, RMSprop's and Adam's √v has no derivative where a gradient was always 0;
    it is taken to be 0 there. Rprop sees only signs, so no second-order term passes through it.
    """

    elementwise = True
    owner: Tensor

    def __init__(
        self,
        layout: ParameterLayout,
        inner_lr: float = 0.01,
        learn_lr: Literal["none", "scalar", "tensor", "parameter"] = "none",
        optimizer: str = "sgd",
        **options: Any,
    ) -> None:
        super().__init__()
        if learn_lr not in LEARN_LR:
            raise unknown("learn_lr", str(learn_lr), LEARN_LR)
        if (
            isinstance(inner_lr, bool)
            or not isinstance(inner_lr, int | float)
            or not 0 <= inner_lr < math.inf
        ):
            raise UsageError(f"inner_lr must be a number >= 0, got {inner_lr!r}")
        if not isinstance(optimizer, str):
            raise UsageError(f"optimizer must be a name, got {optimizer!r}")
        if "lr" in options:
            raise UsageError("unknown option 'lr': did you mean 'inner_lr'?")
        self.twin = TwinOptimizer(optimizer, options)
        self.plain = optimizer == "sgd" and not any(options.values())
        self.starts_as_descent = self.plain and inner_lr > 0
        if learn_lr != "none" and optimizer in ("rprop", "asgd"):
            raise UsageError(
                f"learn_lr = {learn_lr!r} cannot be had with optimizer {optimizer!r}: the meta-gradient"
                ' for its learning rate would be lost; use learn_lr = "none" or another optimizer'
            )
        self.uses_step = not self.plain
        self.coordinatewise = learn_lr in ("none", "scalar")
        shapes = {"scalar": (), "tensor": (len(layout.names),), "parameter": (layout.size,)}
        if learn_lr == "none":
            self.fixed_lr = inner_lr
        else:
            self.inner_lr = nn.Parameter(torch.full(shapes[learn_lr], float(inner_lr)))
        self.per_tensor = learn_lr == "tensor"
        self.register_buffer("owner", layout.owner, persistent=False)

    @property
    def alpha(self) -> float | Tensor:
        """α as it multiplies the gradient: a number, `[]` or `[n]`."""
        if hasattr(self, "fixed_lr"):
            return float(self.fixed_lr)
        return self.inner_lr[self.owner] if self.per_tensor else self.inner_lr

    def init_state(self, theta: Tensor) -> State:
        return () if self.plain else self.twin.init_state(theta, self.alpha)

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        if self.plain:
            return theta - self.alpha * signal.grad, state
        return self.twin.step(theta, signal.grad, state, signal.step, self.alpha)


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"gradient-descent": GradientDescent}
