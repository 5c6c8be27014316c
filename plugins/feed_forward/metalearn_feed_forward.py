"""TURTLE's rule: a feed-forward network proposes each update.

Huisman, Plaat and van Rijn (2022), Equations 3.6 and 3.7.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from metalearn_core import (
    Coordinatewise,
    ParameterLayout,
    Signal,
    State,
    UpdateRule,
    UsageError,
    hookimpl,
    log_and_sign,
    unknown,
)

INPUTS = ("grad", "loss", "theta", "step")
ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}
HISTORY = ("none", "grad", "update")


class FeedForward(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ + α ⊙ g_φ(I⁽ᵗ⁾)   (Eq. 3.7),   h⁽ᵗ⁺¹⁾ = β h⁽ᵗ⁾ + (1 − β) v⁽ᵗ⁾   (Eq. 3.6).

    One network g for all coordinates. φ: `network` (weights as `nn.Linear` draws them, biases 0) and,
    where it is learned, `alpha`. The columns of I, in this order: grad, loss, theta, history, step.

    Args:
        hidden: the widths of g's hidden layers; none makes it a linear map.
        activation: `"relu"`, `"tanh"`, `"sigmoid"`, `"elu"` or `"gelu"`, after each hidden layer.
        inputs: any of `"grad"`, `"loss"`, `"theta"`, `"step"` (t as a number from 0).
        preprocess: `"log"` gives gradient, loss and history two columns each, log-magnitude and sign
            (Andrychowicz et al., 2016); `"none"` feeds them as they are.
        history: the average h of past gradients (`"grad"`) or of past updates, taken after α
            (`"update"`), that is fed beside the inputs; or `"none"`.
        beta: β.
        history_timing: of a history; `"equation"` feeds h⁽ᵗ⁾ at step t from h⁽⁰⁾ = 0; `"program"`, as the
            authors' program has it: gradients are averaged from h = g⁽⁰⁾ on and with the current one,
            updates from the first one, taken whole.
        learn_lr: `"parameter"` learns α ∈ Rⁿ; `"none"` has α = 1.
        alpha_start: where a learned α starts: `"ones"`, or `"uniform"` on [0, 1) as in the authors' program.
        start: `"drawn"`, or `"descent"`: before training, g is −`start_lr`·∇, exactly. Two units of each ReLU
            layer carry max(∇, 0) and max(−∇, 0); the others are drawn as ever, and the last layer does not
            read them yet.
        start_lr: the step size of that descent.
    """

    elementwise = True

    def __init__(
        self,
        layout: ParameterLayout,
        hidden: Sequence[int] = (20, 20, 20, 20, 20),
        activation: str = "relu",
        inputs: Sequence[Literal["grad", "loss", "step", "theta"]] = ("grad",),
        preprocess: Literal["none", "log"] = "none",
        history: Literal["none", "grad", "update"] = "none",
        beta: float = 0.9,
        history_timing: Literal["equation", "program"] = "equation",
        learn_lr: Literal["none", "parameter"] = "none",
        alpha_start: Literal["ones", "uniform"] = "ones",
        start: Literal["drawn", "descent"] = "drawn",
        start_lr: float = 0.01,
    ) -> None:
        super().__init__()
        _require_known(
            *(("input", given, INPUTS) for given in inputs),
            ("activation", activation, tuple(ACTIVATIONS)),
            ("preprocess", preprocess, ("none", "log")),
            ("history", history, HISTORY),
            ("history_timing", history_timing, ("equation", "program")),
            ("learn_lr", learn_lr, ("none", "parameter")),
            ("alpha_start", alpha_start, ("ones", "uniform")),
            ("start", start, ("drawn", "descent")),
        )
        _require_number("beta", beta, 0, 1)
        _require_number("start_lr", start_lr, 0, sys.float_info.max)
        if not isinstance(hidden, list | tuple) or not all(type(w) is int and w > 0 for w in hidden):
            raise UsageError(f"hidden must be a list of widths >= 1, got {hidden!r}")
        if not inputs and history == "none":
            raise UsageError(f"inputs must name at least one of {', '.join(INPUTS)}, or have a history")
        if start == "descent":
            _require_descent(hidden, inputs, preprocess, activation)
        self.inputs, self.history, self.beta = tuple(inputs), history, beta
        self.log, self.as_program = preprocess == "log", history_timing == "program"
        self.uses_loss, self.coordinatewise = "loss" in inputs, learn_lr == "none"
        self.uses_step = "step" in inputs or (self.as_program and history != "none")
        doubled = ("grad" in inputs) + ("loss" in inputs) + (history != "none")
        columns = (1 + self.log) * doubled + ("theta" in inputs) + ("step" in inputs)
        self.network = Coordinatewise(columns, hidden, activation=ACTIVATIONS[activation])
        if start == "descent":
            _start_as_descent([layer for layer in self.network if isinstance(layer, nn.Linear)], start_lr)
        if learn_lr == "parameter":
            self.alpha = nn.Parameter((torch.ones if alpha_start == "ones" else torch.rand)(layout.size))

    def init_state(self, theta: Tensor) -> State:
        return () if self.history == "none" else torch.zeros_like(theta)

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        if self.as_program and self.history == "grad":
            state = signal.grad if signal.step == 0 else self._average(state, signal.grad)
        (proposed,) = self.network(self._columns(theta, signal, state))
        change = self.alpha * proposed if hasattr(self, "alpha") else proposed
        return theta + change, self._next_history(signal, change, state)

    def _next_history(self, signal: Signal, change: Tensor, state: State) -> State:
        """h⁽ᵗ⁺¹⁾ of Equation 3.6, or as the authors' program has it."""
        if self.history == "none":
            return ()
        if self.as_program:
            if self.history == "grad":
                return state
            return change if signal.step == 0 else self._average(state, change)
        return self._average(state, signal.grad if self.history == "grad" else change)

    def _average(self, history: Tensor, new: Tensor) -> Tensor:
        return self.beta * history + (1 - self.beta) * new

    def _columns(self, theta: Tensor, signal: Signal, history: State) -> list[Tensor]:
        """The columns of I⁽ᵗ⁾, each `[..., n]`."""
        columns: list[Tensor] = []
        if "grad" in self.inputs:
            columns += self._processed(signal.grad)
        if "loss" in self.inputs:
            columns += self._processed(signal.loss.unsqueeze(-1).expand_as(theta))
        if "theta" in self.inputs:
            columns.append(theta)
        if self.history != "none":
            columns += self._processed(history)
        if "step" in self.inputs:
            columns.append(torch.full_like(theta, signal.step))
        return columns

    def _processed(self, x: Tensor) -> list[Tensor]:
        return log_and_sign(x) if self.log else [x]


def _require_known(*options: tuple[str, str, Sequence[str]]) -> None:
    """Raise UsageError at the first (name, value, known values) whose value is not known."""
    for name, value, known in options:
        if value not in known:
            raise unknown(name, str(value), known)


def _require_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        wanted = f"in [{low}, {high}]" if high <= 1 else f">= {low}"
        raise UsageError(f"{name} must be a number {wanted}, got {value!r}")


def _require_descent(hidden: Sequence[int], inputs: Sequence[str], preprocess: str, activation: str) -> None:
    """Raise UsageError for a network that cannot start as descent."""
    if "grad" not in inputs or (preprocess, activation) != ("none", "relu"):
        raise UsageError("start = 'descent' needs 'grad' among the inputs, preprocess = 'none' and ReLU")
    if 1 in hidden:
        raise UsageError(f"start = 'descent' needs hidden layers of 2 or more units, got {hidden!r}")


@torch.no_grad()
def _start_as_descent(layers: Sequence[nn.Linear], inner_lr: float) -> None:
    """Make the network −`inner_lr`·∇, where ∇ is its first column: x = max(x, 0) − max(−x, 0)."""
    *hidden, last = layers
    for depth, layer in enumerate(hidden):
        layer.weight[:2] = 0.0
        layer.weight[:2, : 2 if depth else 1] = torch.eye(2) if depth else torch.tensor([[1.0], [-1.0]])
    last.weight.zero_()
    last.weight[0, : 2 if hidden else 1] = torch.tensor([-inner_lr, inner_lr] if hidden else [-inner_lr])


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"feed-forward": FeedForward}
