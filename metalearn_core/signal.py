"""What an update rule is shown: the signal of one support pass, and the support set behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import UsageError, require_callables, require_kinds
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
        >>> adapt(Newton(), learner, torch.zeros(1), batch, steps=1).tolist()
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
            UsageError: for an objective that gives no single number, or is no function.
        """
        require_callables("support.gradient", objective=objective)
        require_kinds("support.gradient", theta=(theta, Tensor))

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


class Noise:
    """Normal numbers that repeat: functions of the task, the inner step, the seed and nothing else.

    Counted from a hash (Salmon et al., 2011), not drawn from a stream: the same eager, compiled, batched and
    resumed. Each call in one update gives other numbers.

    Args:
        keys: one number from 0 to 2³² − 1 for each task, `[]`, or `[tasks]` for a rule called on a stack.
        like: a tensor of the dtype that the numbers shall have.

    Example:
        >>> import torch
        >>> from metalearn_core import Noise
        >>> of_task, again = (Noise(torch.tensor(7), torch.zeros(3)) for _ in range(2))
        >>> first = of_task((3,))
        >>> torch.equal(first, again((3,))), torch.equal(first, of_task((3,)))
        (True, False)
    """

    def __init__(self, keys: Tensor, like: Tensor) -> None:
        self._keys, self._like, self._calls = keys, like, 0

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Independent standard normal numbers; the shape of a rule on a stack leads with `[tasks]`."""
        if not isinstance(shape, tuple | list):
            kind = type(shape).__name__
            raise UsageError(f"signal.noise: the shape must be a tuple, such as theta.shape; got: {kind}")
        lead, own = tuple(shape[: self._keys.ndim]), tuple(shape[self._keys.ndim :])
        if lead != tuple(self._keys.shape):
            raise UsageError(
                f"signal.noise: the shape must lead with {tuple(self._keys.shape)}, got {lead}: an"
                " elementwise rule is called on a stack of tasks; take theta.shape"
            )
        self._calls += 1
        places = torch.arange(2 * math.prod(own), device=self._keys.device)
        hashed = hash_of(hash_of(self._keys + self._calls).unsqueeze(-1) + hash_of(places))
        first, second = (hashed.to(torch.float64) + 0.5).mul(2.0**-32).chunk(2, -1)
        normal = (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()  # Box and Muller, 1958
        return normal.reshape(*lead, *own).to(self._like.dtype)


def hash_of(x: Tensor) -> Tensor:
    """A hash of integers, each from 0 to 2³² − 1, with all bits mixed (Wellons' lowbias32)."""
    x = x & _LOW
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _LOW
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _LOW
    return x ^ (x >> 15)


_LOW = 2**32 - 1


def noise_keys(support: Batch, seed: Tensor | int, step: int) -> Tensor:
    """What the noise of each task of a stacked batch is made from in step t: `[tasks]`.

    The task counts by the bits of its support set in float32, padding left out. So it has the same noise in
    every meta-batch, at every position and in every process.
    """
    tensors = [x for x in support.tensors if x is not support.mask]
    total = torch.zeros(len(tensors[0]), dtype=torch.int64, device=tensors[0].device)
    for number, x in enumerate(tensors):
        bits = x.detach().to(torch.float32).contiguous().view(torch.int32) if x.is_floating_point() else x
        bits = bits.to(torch.int64).reshape(*x.shape[:2], -1)
        columns, rows = (torch.arange(size, device=x.device) for size in (bits.shape[2], bits.shape[1]))
        of_examples = hash_of((hash_of(bits) + hash_of(columns + 977 * number)).sum(-1))
        found = hash_of(of_examples + hash_of(rows))
        total = total + (found if support.mask is None else torch.where(support.mask, found, 0)).sum(-1)
    of_seed = hash_of(torch.as_tensor(seed, device=total.device))
    return hash_of(hash_of(total) + hash_of(of_seed + step))


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
        noise: `noise(shape)` gives normal numbers that repeat, a `Noise`.

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
    _noise: Noise | UndeclaredField | None

    def __init__(
        self, grad: Tensor, loss: Tensor | UndeclaredField, step: int | UndeclaredField,
        support: SupportSet | UndeclaredField | None = None, steps: int | UndeclaredField | None = None,
        noise: Noise | UndeclaredField | None = None,
    ) -> None:  # fmt: skip
        # by hand: torch.compile does not follow the initialiser that attrs writes for a frozen class
        object.__setattr__(self, "grad", grad)
        object.__setattr__(self, "_loss", loss)
        object.__setattr__(self, "_step", step)
        object.__setattr__(self, "_support", support)
        object.__setattr__(self, "_steps", steps)
        object.__setattr__(self, "_noise", noise)

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

    @property
    def noise(self) -> Noise:
        """`noise(shape)`: normal numbers of this task, step and seed; UsageError unless `uses_noise`."""
        if isinstance(self._noise, UndeclaredField):
            raise self._noise.error("noise")
        if self._noise is None:
            raise UsageError("signal.noise: there is no task here whose noise it could be")
        return self._noise
