"""The seam to `higher`: the one file that imports it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes as untraced

with warnings.catch_warnings():
    # higher 0.2.1 compares with `is 1` (higher/optim.py, apply_trainable_opt_params)
    warnings.filterwarnings("ignore", message='"is" with', category=SyntaxWarning)
    warnings.filterwarnings("ignore", message=".*invalid escape sequence")  # higher/utils.py
    import higher

from metalearn_core.errors import UsageError
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


def differentiable_twin(
    optimizer: torch.optim.Optimizer, placeholder: Tensor, override: dict[str, list[Any]]
) -> Any:
    """`higher`'s twin of a torch optimiser over one placeholder, with some options overridden.

    Args:
        optimizer: a torch optimiser whose one parameter is `placeholder`.
        placeholder: `[]`; the caller exchanges it for θ.
        override: option to the one value that it has in this twin; it may require a gradient.
    """
    with untraced():  # it deep-copies, which a tracer cannot follow
        return higher.get_diff_optim(optimizer, [placeholder], override=override)


class Advance(Protocol):
    """`(params, grads, loss) -> params`: one step of an optimiser, as a function; it keeps its own memory."""

    def __call__(
        self, params: Sequence[Tensor], grads: Sequence[Tensor | None], loss: Tensor, *, track: bool
    ) -> Sequence[Tensor]:
        """`track`: keep the graph."""


class DifferentiableSteps(higher.optim.DifferentiableOptimizer):  # type: ignore[misc]
    """`higher`'s differentiable twin of an optimiser that has a method `unrolled`.

    That gives a function, an `Advance`, and the places of the parameters that it takes among those of all
    groups. What it works with is never copied: a network in `param_groups` would be, and get no gradient.
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
        self._advance: Advance
        self._places: Sequence[int]
        self._advance, self._places = other.unrolled(device)  # type: ignore[attr-defined]

    def step(self, loss: Tensor, *args: Any, **kwargs: Any) -> Iterable[Tensor]:
        """As `higher` has it; a rule may want to see the loss."""
        self._loss = loss
        if kwargs.get("override"):
            raise UsageError("step: there is nothing to override in a learned optimiser")
        params: Iterable[Tensor] = super().step(loss, *args, **kwargs)
        del self._loss  # the optimiser outlives the step, the graph need not
        return params

    def _update(self, grouped_grads: list[list[Tensor | None]], **kwargs: Any) -> None:
        params = [parameter for group in self.param_groups for parameter in group["params"]]
        grads = [grad for group in grouped_grads for grad in group]
        moved = self._advance(
            [params[place] for place in self._places], [grads[place] for place in self._places],
            self._loss, track=self._track_higher_grads,
        )  # fmt: skip
        for place, parameter in zip(self._places, moved, strict=True):
            params[place] = parameter
        for group in self.param_groups:
            size = len(group["params"])
            group["params"][:], params = params[:size], params[size:]


def register(optimizer: type[torch.optim.Optimizer]) -> None:
    """Let `higher` unroll an optimiser that has `unrolled`."""
    higher.register_optim(optimizer, DifferentiableSteps)
