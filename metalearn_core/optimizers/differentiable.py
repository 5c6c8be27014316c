"""The seam to `higher`: the one file that imports it."""

from __future__ import annotations

import inspect
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes as untraced

with warnings.catch_warnings():
    # higher 0.2.1 compares with `is 1` (higher/optim.py, apply_trainable_opt_params)
    warnings.filterwarnings("ignore", message='"is" with', category=SyntaxWarning)
    warnings.filterwarnings("ignore", message=".*invalid escape sequence")  # higher/utils.py
    import higher

from metalearn_core.errors import UsageError, unknown
from metalearn_core.rule import State

BatchedUpdate = Callable[[Tensor, Tensor, State], tuple[Tensor, State]]
"""`(theta, grad, state) -> (theta, state)` on a whole stack."""


class RuleOptimizer(torch.optim.Optimizer):
    """The plain optimiser that `higher` wants to see beside a differentiable one; it never steps."""

    def __init__(self, params: list[Tensor]) -> None:
        super().__init__(params, {})


class DifferentiableRule(higher.optim.DifferentiableOptimizer):  # type: ignore[misc]
    """`higher`'s differentiable optimiser whose update is an update rule, its state explicit.

    Rule and state come through `override`, which `higher` hands over as they are: what stands in
    `param_groups` from the start is deep-copied, and a network there would get no gradient.
    """

    def _update(self, grouped_grads: list[list[Tensor | None]], **kwargs: Any) -> None:
        group = self.param_groups[0]
        (theta,), (grad,) = group["params"], grouped_grads[0]
        group["params"][0], group["state"] = group["update"](theta, grad, group["state"])


higher.register_optim(RuleOptimizer, DifferentiableRule)


_MADE = threading.local()


class InnerOptimizer:
    """One inner loop's optimiser. `track`: keep the graph through the steps (False: evaluation)."""

    def __init__(self, *, track: bool) -> None:
        # nothing is left on it between two steps, and making one deep-copies, which takes time
        if not hasattr(_MADE, str(track)):
            with untraced():
                placeholder = torch.zeros((), requires_grad=True)
                optimizer = RuleOptimizer([placeholder])
                made = higher.get_diff_optim(optimizer, [placeholder], track_higher_grads=track)
            setattr(_MADE, str(track), made)
        self._optimizer = getattr(_MADE, str(track))

    def step(
        self,
        loss: Tensor,
        theta: Tensor,
        transform: Callable[[Tensor], Tensor],
        update: BatchedUpdate,
        state: State,
    ) -> tuple[Tensor, State]:
        """Differentiate `loss`, `[]`, for θ, `transform` the gradient, and let `update` answer."""

        def callback(grads: tuple[Tensor | None, ...]) -> list[Tensor]:
            # higher says None for a parameter that the loss does not use
            return [transform(torch.zeros_like(theta) if g is None else g) for g in grads]

        override = {"update": [update], "state": [state]}
        (theta,) = self._optimizer.step(loss, params=[theta], override=override, grad_callback=callback)
        group = self._optimizer.param_groups[0]
        # the optimiser outlives the step, the graph behind θ need not
        state, group["params"], group["state"] = group["state"], [None], None
        return theta, state


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
    """A torch optimiser's own steps as a differentiable function with explicit state.

    The arithmetic is that of `higher`'s twin, elementwise on tensors with any leading axes; the
    state is a dict of tensors shaped like θ, and the step count is an argument. (ASGD's average,
    which never reaches θ, is left out.)

    Args:
        name: one of `TWINS`.
        options: the optimiser's own options other than `lr`.

    Raises:
        UsageError: for an unknown optimiser or option, or a value that torch refuses.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
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
        override: dict[str, list[Any]] = {"lr": [lr]}
        if self.name == "adam":
            # torch adds ε to √v/√(1 − β₂ᵗ), higher to √v, whose corrected step it scales instead
            correction = 1 - self._group["betas"][1] ** (step + 1)
            override["eps"] = [self._group["eps"] * math.sqrt(correction)]
        with warnings.catch_warnings():
            # higher warns of RMSprop's gradients at zero (mended below) and of Rprop's, zero by nature
            warnings.filterwarnings("ignore", message="Differentiable R", category=UserWarning)
            with untraced():  # it deep-copies, which a tracer cannot follow
                twin = higher.get_diff_optim(self._prototype, [self._placeholder], override=override)
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


def _averaging_schedule(
    group: dict[str, Any], step: int, lr: float | Tensor, theta: Tensor
) -> dict[str, Any]:
    """ASGD's step size and averaging weight after `step` steps, which depend on nothing else."""
    eta = lr if step == 0 else lr / (1 + group["lambd"] * lr * step) ** group["alpha"]
    mu = 1 if step == 0 else 1 / max(1, step - group["t0"])
    return {"eta": eta, "mu": mu, "ax": torch.zeros_like(theta)}


class Advance(Protocol):
    """`(params, grads, loss) -> params`: one step of an optimiser, as a function; it keeps its own memory."""

    def __call__(
        self, params: Sequence[Tensor], grads: Sequence[Tensor | None], loss: Tensor, *, track: bool
    ) -> Sequence[Tensor]:
        """`track`: keep the graph."""


class DifferentiableSteps(higher.optim.DifferentiableOptimizer):  # type: ignore[misc]
    """`higher`'s differentiable twin of an optimiser that has a method `unrolled(device) -> Advance`.

    What that function works with is never copied: a network in `param_groups` would be, and get no gradient.
    """

    def __init__(
        self, other: torch.optim.Optimizer, reference_params: Iterable[Tensor], *args: Any,
        device: torch.device | None = None, override: object = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        if override:
            raise UsageError(
                f"{type(other).__name__}: there is nothing to override in it, got {override!r:.60}; its"
                " meta-parameters are those of its rule"
            )
        super().__init__(other, reference_params, *args, device=device, **kwargs)
        self._advance: Advance = other.unrolled(device)  # type: ignore[attr-defined]

    def step(self, loss: Tensor, *args: Any, **kwargs: Any) -> Iterable[Tensor]:
        """As `higher` has it; a rule may want to see the loss."""
        self._loss = loss
        if kwargs.get("override"):
            raise UsageError("step: there is nothing to override in a learned optimiser")
        params: Iterable[Tensor] = super().step(loss, *args, **kwargs)
        del self._loss  # the optimiser outlives the step, the graph need not
        return params

    def _update(self, grouped_grads: list[list[Tensor | None]], **kwargs: Any) -> None:
        params = self.param_groups[0]["params"]
        params[:] = self._advance(params, grouped_grads[0], self._loss, track=self._track_higher_grads)


def register(optimizer: type[torch.optim.Optimizer]) -> None:
    """Let `higher` unroll an optimiser that has `unrolled`."""
    higher.register_optim(optimizer, DifferentiableSteps)
