"""What an update rule is shown: the signal of one support pass, and the support set behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import UsageError
from metalearn_core.task import Batch

Objective = Callable[[Tensor], Tensor]
"""A scalar function of θ: `[n]` to `[]`."""


@attrs.frozen
class UndeclaredField:
    """The placeholder in a signal for a field that the rule has not declared.

    `why`: what to say instead, where the rule has declared it and there is none.
    """

    rule: str
    why: str = ""

    def error(self, field: str, declared: str = "") -> UsageError:
        """The error that reading it raises."""
        return UsageError(
            f"rule {self.rule}: "
            + (
                self.why
                or f"update reads signal.{field} without having declared it;"
                f" add the class variable uses_{declared or field} = True"
            )
        )


class SupportSet:
    """The support set of one task, as the base-learner sees it: functions of θ, `[n]`.

    `signal.support` for a rule that declares `uses_support`, and an argument of `UpdateRule.start`.
    `loss` and `predict` are plain functions, differentiable under both orders; what `gradient` gives is
    subject to the order and to the clipping, as `signal.grad` is.

    Args:
        batch: its examples.
        loss: `loss(theta) -> []`, the support loss.
        predict: `predict(theta)`, the base-learner's predictions for `batch.inputs`.
        shown: what is shown of a gradient, `[n]`: the loop's clipping.
        constant: whether gradients are constants: under the first order, and where no graph is kept.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalearn_core import BaseLearner, Batch, UpdateRule, adapt
        >>> class Newton(UpdateRule):
        ...     uses_support = True
        ...
        ...     def update(self, theta, signal, state):
        ...         support = signal.support
        ...         curvature = support.gradient(lambda at: support.gradient(support.loss, at).sum(), theta)
        ...         return theta - signal.grad / curvature, state
        >>> learner = BaseLearner(nn.Linear(1, 1, bias=False), nn.functional.mse_loss)
        >>> batch = Batch(torch.ones(1, 1), torch.full((1, 1), 3.0))  # the loss is (θ − 3)²
        >>> adapt(Newton(learner.layout), learner, torch.zeros(1), batch, steps=1).tolist()
        [3.0]
    """

    def __init__(
        self, batch: Batch, loss: Objective, predict: Callable[[Tensor], Any],
        shown: Callable[[Tensor], Tensor] = lambda grad: grad, constant: bool = False,
    ) -> None:  # fmt: skip
        self.batch, self.loss, self.predict = batch, loss, predict
        self._shown, self._constant, self._inside = shown, constant, False

    def gradient(self, objective: Objective, theta: Tensor) -> Tensor:
        """The gradient of a scalar function of θ at `theta`, `[n]`.

        Inside an objective it is the derivative itself: the loop's order and clipping are for what the
        rule gets, so that products with a Hessian are right under both orders.

        Args:
            objective: `objective(theta) -> []`; it may read φ, the signal and the state.
            theta: where, `[n]`.

        Raises:
            UsageError: for an objective that gives no single number.
        """

        def scalar(at: Tensor) -> Tensor:
            value = objective(at)
            if not isinstance(value, Tensor) or value.ndim:
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
                raise UsageError(f"support.gradient: the objective must return one number, got {got}")
            return value

        if self._inside:
            inner: Tensor = torch.func.grad(scalar)(theta)
            return inner
        self._inside = True
        try:
            # a graph is kept where a meta-gradient goes through it, and only there
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self._constant):
                grad = torch.func.grad(scalar)(theta)
        finally:
            self._inside = False
        return self._shown(grad)


@attrs.frozen(eq=False, init=False)
class Signal:
    """What one pass over the support set tells a rule.

    For a rule that is called on a stack (`elementwise`), θ and grad are `[tasks, n]` and loss is `[tasks]`.

    Args:
        grad: ∇L(θ⁽ᵗ⁾), `[n]`.
        loss: L(θ⁽ᵗ⁾), `[]`; a constant under the first-order assumption.
        step: t, an int from 0.
        support: the support set itself, a `SupportSet`.
        steps: T, an int.

    Raises:
        UsageError: where a rule reads anything but `grad` without having declared that it does.

    Example:
        >>> import torch
        >>> from metalearn_core import Signal
        >>> signal = Signal(grad=torch.tensor([2.0]), loss=torch.tensor(1.0), step=0)
        >>> torch.zeros(1) - 0.5 * signal.grad
        tensor([-1.])
    """

    grad: Tensor
    _loss: Tensor | UndeclaredField
    _step: int | UndeclaredField
    _support: SupportSet | UndeclaredField | None
    _steps: int | UndeclaredField | None

    def __init__(
        self, grad: Tensor, loss: Tensor | UndeclaredField, step: int | UndeclaredField,
        support: SupportSet | UndeclaredField | None = None, steps: int | UndeclaredField | None = None,
    ) -> None:  # fmt: skip
        # by hand: torch.compile does not follow the initialiser that attrs writes for a frozen class
        object.__setattr__(self, "grad", grad)
        object.__setattr__(self, "_loss", loss)
        object.__setattr__(self, "_step", step)
        object.__setattr__(self, "_support", support)
        object.__setattr__(self, "_steps", steps)

    @property
    def loss(self) -> Tensor:
        """The support loss; raises UsageError unless the rule declares `uses_loss`."""
        if isinstance(self._loss, UndeclaredField):
            raise self._loss.error("loss")
        return self._loss

    @property
    def step(self) -> int:
        """The inner step; raises UsageError unless the rule declares `uses_step`."""
        if isinstance(self._step, UndeclaredField):
            raise self._step.error("step")
        return self._step

    @property
    def steps(self) -> int:
        """T, the number of inner steps; raises UsageError unless the rule declares `uses_step`."""
        if isinstance(self._steps, UndeclaredField):
            raise self._steps.error("steps", "step")
        if self._steps is None:
            raise UsageError("signal.steps: nobody knows T here; only the inner loop does")
        return self._steps

    @property
    def support(self) -> SupportSet:
        """The support set; raises UsageError unless the rule declares `uses_support`."""
        if isinstance(self._support, UndeclaredField):
            raise self._support.error("support")
        if self._support is None:
            raise UsageError("signal.support: there is no support set here; only the inner loop has one")
        return self._support
