"""An update rule: what turns a support gradient into the next parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from metalearn_core.errors import UsageError

State: TypeAlias = Any
"""Tensors in tuples, named tuples or dicts; `()` for a rule without memory."""


@attrs.frozen
class Undeclared:
    """Stands in a signal for what the rule did not say that it reads."""

    rule: str

    def error(self, field: str) -> UsageError:
        """The error that reading it raises."""
        return UsageError(
            f"rule {self.rule}: update reads signal.{field} without having declared it;"
            f" add the class variable uses_{field} = True"
        )


@attrs.frozen(eq=False)
class Signal:
    """What one pass over the support set tells a rule.

    Args:
        grad: ∇L(θ⁽ᵗ⁾), `[n]`.
        loss: L(θ⁽ᵗ⁾), `[]`; constant under the first-order assumption.
        step: t, an int from 0.

    For a rule that is called on a stack (`elementwise`), θ and grad are `[tasks, n]` and loss `[tasks]`.
    """

    grad: Tensor
    _loss: Tensor | Undeclared
    _step: int | Undeclared

    @property
    def loss(self) -> Tensor:
        """The support loss; raises UsageError unless the rule declares `uses_loss`."""
        if isinstance(self._loss, Undeclared):
            raise self._loss.error("loss")
        return self._loss

    @property
    def step(self) -> int:
        """The inner step; raises UsageError unless the rule declares `uses_step`."""
        if isinstance(self._step, Undeclared):
            raise self._step.error("step")
        return self._step


class UpdateRule(nn.Module, ABC):
    """θ⁽ᵗ⁺¹⁾, state = update(θ⁽ᵗ⁾, signal, state), written for one task and one vector.

    Its `nn.Parameter`s are the meta-parameters φ. `update` must be pure: it reads its arguments and
    its parameters, writes nothing, draws no random numbers, does not branch on a tensor's value, and
    returns a state of the structure that it was given. The core batches it over tasks, decides the
    order of differentiation, and clips. An instance may set its class variables where an option decides.

    Class variables:
        uses_loss, uses_step: it reads `signal.loss`, `signal.step`.
        elementwise: each coordinate for itself, and written so that it takes leading axes: it is
            called once on the stack `[tasks, n]` instead of under `vmap`.
        coordinatewise: the same function for every coordinate, so permuting θ permutes the result.
        starts_as_descent: as it is made, it is θ ← θ − αg, with one α > 0.
    """

    api_version: ClassVar[int] = 1
    uses_loss: bool = False
    uses_step: bool = False
    elementwise: bool = False
    coordinatewise: bool = False
    starts_as_descent: bool = False

    def init_state(self, theta: Tensor) -> State:
        """The state at t = 0 for θ of shape `[n]` (`[tasks, n]` if elementwise)."""
        return ()

    @abstractmethod
    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        """The next θ, of the same shape and dtype, and the next state, of the same structure."""

    def forward(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        """`update`, so that `torch.func.functional_call` reaches it with another φ."""
        return self.update(theta, signal, state)

    @property
    def label(self) -> str:
        """Class and module, for messages."""
        return f"{type(self).__name__} ({type(self).__module__})"


@contextmanager
def parameters_as(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with other tensors in the places of its parameters; a shared one has several places."""
    tables: list[dict[str, Any]] = [part._parameters for part in module.modules()]
    meant = {}
    for name, value in values.items():
        path, _, leaf = name.rpartition(".")
        meant[id(module.get_submodule(path)._parameters[leaf])] = value
    places = [(table, leaf, p) for table in tables for leaf, p in table.items() if id(p) in meant]
    for table, leaf, parameter in places:
        table[leaf] = meant[id(parameter)]
    try:
        yield
    finally:
        for table, leaf, parameter in places:
            table[leaf] = parameter


def log_and_sign(x: Tensor, p: float = 10.0) -> list[Tensor]:
    """(log|x|/p, sign x) where |x| >= e⁻ᵖ, else (−1, eᵖx): two columns of the shape of x.

    Gradients of all magnitudes made readable for a network (Andrychowicz et al., 2016, Appendix A).
    """
    threshold = math.exp(-p)
    large = x.abs() >= threshold
    # the clamp keeps the branch not taken, and so its gradient, finite at x = 0
    logarithm = torch.where(large, x.abs().clamp(min=threshold).log() / p, -torch.ones_like(x))
    return [logarithm, torch.where(large, x.sign(), x / threshold)]
