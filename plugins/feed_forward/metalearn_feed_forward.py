"""TURTLE's rule: a feed-forward network proposes each update.

Huisman, Plaat and van Rijn (2022), Equations 3.6 and 3.7.
"""

from __future__ import annotations

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
    ) -> None:
        super().__init__()
        for name, value, known in (
            *(("input", given, INPUTS) for given in inputs),
            ("activation", activation, tuple(ACTIVATIONS)),
            ("preprocess", preprocess, ("none", "log")),
            ("history", history, HISTORY),
            ("history_timing", history_timing, ("equation", "program")),
            ("learn_lr", learn_lr, ("none", "parameter")),
            ("alpha_start", alpha_start, ("ones", "uniform")),
        ):
            if value not in known:
                raise unknown(name, str(value), known)
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 <= beta <= 1:
            raise UsageError(f"beta must be a number in [0, 1], got {beta!r}")
        if not isinstance(hidden, list | tuple) or not all(type(w) is int and w > 0 for w in hidden):
            raise UsageError(f"hidden must be a list of widths >= 1, got {hidden!r}")
        if not inputs and history == "none":
            raise UsageError(f"inputs must name at least one of {', '.join(INPUTS)}, or have a history")
        self.inputs, self.history, self.beta = tuple(inputs), history, beta
        self.log, self.as_program = preprocess == "log", history_timing == "program"
        self.uses_loss = "loss" in inputs
        self.uses_step = "step" in inputs or (self.as_program and history != "none")
        self.coordinatewise = learn_lr == "none"
        wide = 2 if self.log else 1
        doubled = ("grad" in inputs) + ("loss" in inputs) + (history != "none")
        columns = wide * doubled + ("theta" in inputs) + ("step" in inputs)
        self.network = Coordinatewise(columns, hidden, activation=ACTIVATIONS[activation])
        if learn_lr == "parameter":
            start = torch.ones if alpha_start == "ones" else torch.rand
            self.alpha = nn.Parameter(start(layout.size))

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


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"feed-forward": FeedForward}
