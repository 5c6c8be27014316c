"""Torch's own optimisers as differentiable functions with explicit state."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metalearn_core.errors import UsageError, require_kinds, unknown
from metalearn_core.optimizers.differentiable import differentiable_twin

TWINS: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
    "rprop": torch.optim.Rprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "asgd": torch.optim.ASGD,
}
"""Torch's optimisers that `higher` has a differentiable twin for."""

# What a twin does not read, it would ignore in silence; and these choose an implementation, not a rule.
_NOT_IN_A_TWIN = {
    "foreach", "fused", "capturable", "differentiable", "maximize", "decoupled_weight_decay",
}  # fmt: skip

_MEMORY: Mapping[str, tuple[str, ...]] = {
    "sgd": (),
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamax": ("exp_avg", "exp_inf"),
    "rmsprop": ("square_avg",),
    "rprop": ("prev", "step_size"),
    "adagrad": ("sum",),
    "adadelta": ("square_avg", "acc_delta"),
    "asgd": (),
}


class TwinOptimizer:
    """The steps of a torch optimiser as a differentiable function with explicit state.

    The arithmetic is that of `higher`'s twin (Grefenstette et al., 2019), elementwise on tensors with any
    leading axes. The state is a dict of tensors in the shape of θ, and the step count is an argument. The
    average of ASGD, which never reaches θ, is left out. Of a complex θ the real and the imaginary parts are
    updated each for itself, as torch does.

    Args:
        name: one of `TWINS`.
        options: the options of the optimiser other than `lr`.

    Raises:
        UsageError: for an unknown optimiser or option, or a value that torch refuses.

    Example:
        >>> import torch
        >>> from metalearn_core import TwinOptimizer
        >>> sgd = TwinOptimizer("sgd", {"momentum": 0.5})
        >>> theta, grad = torch.zeros(2), torch.ones(2)
        >>> state = sgd.init_state(theta, lr=0.1)
        >>> for step in range(2):
        ...     theta, state = sgd.step(theta, grad, state, step, lr=0.1)
        >>> theta  # −0.1 · 1, then −0.1 · 1.5
        tensor([-0.2500, -0.2500])
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        require_kinds("TwinOptimizer", name=(name, str), options=(options, Mapping))
        if name not in TWINS:
            raise unknown("optimizer", name, TWINS)
        signature = inspect.signature(TWINS[name].__init__).parameters
        allowed = set(signature) - _NOT_IN_A_TWIN - {"self", "params", "lr"}
        for option in options:
            if option not in allowed:
                raise UsageError(f"optimizer {name!r}: {unknown('option', option, allowed)}")
        self.name = name
        as_tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        self._placeholder = torch.zeros(())
        try:
            self._prototype = TWINS[name]([self._placeholder], **as_tuples)
        except (TypeError, ValueError, IndexError) as error:
            raise UsageError(f"optimizer {name!r} cannot be had with {as_tuples}: {error}") from error
        self._group = self._prototype.param_groups[0]

    def __repr__(self) -> str:
        return f"{self.name} { ({k: v for k, v in self._group.items() if k != 'params'}) }"

    @property
    def memory(self) -> tuple[str, ...]:
        """The names of the tensors that it carries from step to step."""
        extra = []
        if self._group.get("amsgrad"):
            extra.append("max_exp_avg_sq")
        if self.name in ("sgd", "rmsprop") and self._group["momentum"]:
            extra.append("momentum_buffer")
        if self._group.get("centered"):
            extra.append("grad_avg")
        return (*_MEMORY[self.name], *extra)

    def init_state(self, theta: Tensor, lr: float | Tensor) -> dict[str, Tensor]:
        """What the optimiser remembers before its first step."""
        require_kinds("TwinOptimizer", theta=(theta, Tensor))
        if theta.is_complex():
            state = self.init_state(torch.view_as_real(theta), _for_both_parts(lr))
            return {name: torch.view_as_complex(held) for name, held in state.items()}
        state = {name: torch.zeros_like(theta) for name in self.memory}
        if self.name == "adagrad":
            state["sum"] = torch.full_like(theta, self._group["initial_accumulator_value"])
        if self.name == "rprop":
            state["step_size"] = torch.zeros_like(theta) + lr
        return state

    def step(
        self, theta: Tensor, grad: Tensor, state: dict[str, Tensor], step: int, lr: float | Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of the optimiser at its step `step` (from 0), with learning rate `lr`."""
        if theta.is_complex():
            parts = {name: torch.view_as_real(held) for name, held in state.items()}
            moved, parts = self.step(
                torch.view_as_real(theta), torch.view_as_real(grad), parts, step, _for_both_parts(lr)
            )
            state = {name: torch.view_as_complex(held) for name, held in parts.items()}
            return torch.view_as_complex(moved), state
        override: dict[str, list[Any]] = {"lr": [lr]}
        if self.name == "adam":
            # torch adds ε to √v/√(1 − β₂ᵗ), higher to √v, whose corrected step it scales instead
            correction = 1 - self._group["betas"][1] ** (step + 1)
            override["eps"] = [self._group["eps"] * math.sqrt(correction)]
        with warnings.catch_warnings():
            # higher warns of RMSprop's gradients at zero (mended below) and of Rprop's, zero by nature
            warnings.filterwarnings("ignore", message="Differentiable R", category=UserWarning)
            twin = differentiable_twin(self._prototype, self._placeholder, override)
        memory: dict[str, Any] = {"step": step, **state}
        if self.name == "sgd" and step == 0:
            memory.pop("momentum_buffer", None)  # torch's first buffer is the gradient, undamped
        if self.name == "asgd":
            memory |= _averaging_schedule(twin.param_groups[0], step, lr, theta)
        if self._group.get("centered"):
            # √(v − m²) has no derivative where both are 0; the smallest normal number gives it one
            memory["square_avg"] = state["square_avg"] + torch.finfo(theta.dtype).tiny
        twin.state[0][0] = memory
        twin.param_groups[0]["params"] = [theta]
        twin._update([[grad]])
        return twin.param_groups[0]["params"][0], {name: memory[name] for name in self.memory}


def _for_both_parts(lr: float | Tensor) -> float | Tensor:
    """The learning rates of the coordinates, `[n]`, beside a last axis for the real and imaginary part."""
    return lr.unsqueeze(-1) if isinstance(lr, Tensor) and lr.ndim else lr


def _averaging_schedule(
    group: dict[str, Any], step: int, lr: float | Tensor, theta: Tensor
) -> dict[str, Any]:
    """ASGD's step size and averaging weight after `step` steps, which depend on nothing else."""
    eta = lr if step == 0 else lr / (1 + group["lambd"] * lr * step) ** group["alpha"]
    mu = 1 if step == 0 else 1 / max(1, step - group["t0"])
    return {"eta": eta, "mu": mu, "ax": torch.zeros_like(theta)}
