"""The meta-learner LSTM (Ravi and Larochelle, 2017).

Huisman, Plaat and van Rijn (2022), Equation 3.3: the cell state of an LSTM holds θ, its forget gate is
a learned weight decay, its input gate a learned learning rate, its candidate the negative gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from metalearn_core import (
    ParameterLayout,
    Signal,
    State,
    UpdateRule,
    UsageError,
    coordinatewise_cell,
    hookimpl,
    log_and_sign,
    unknown,
)

INPUTS = ("grad", "loss")


class Memory(NamedTuple):
    """What a coordinate remembers: gate inputs `[..., n]`, first layer `[..., hidden, n]`."""

    forget: Tensor
    input: Tensor
    output: Tensor
    cell: Tensor


class LSTM(UpdateRule):
    """f = σ(W_f·[∇, L, θ, f₋] + b_f), i = σ(W_i·[∇, L, θ, i₋] + b_i), θ⁽ᵗ⁺¹⁾ = f⊙θ⁽ᵗ⁾ − i⊙∇ (Eq. 3.3).

    The gates are shared by all coordinates. φ: `forget_gate` and `input_gate` (weight, bias), then
    the first layer's `input_map` and `hidden_map`.

    Args:
        hidden: 0, the equation; or the width of a first LSTM layer over the inputs, whose output
            takes the place of ∇ and L in the gates (the authors' program: 20; Figure 2 of Ravi and
            Larochelle). With it the published numbers were made.
        inputs: any of `"grad"`, `"loss"`.
        preprocess: `"log"` gives each input two columns, log-magnitude and sign (Andrychowicz et
            al., 2016, Appendix A, p = 10); `"none"` feeds it as it is.
        previous_gate: what f₋ and i₋ are, 0 at the start: the gates after the `"sigmoid"` (the
            equation), or the `"logit"` before it (the authors' program).
        forget_bias, input_bias: the ranges that b_f and b_i are drawn from; as they are, "keep
            everything, small step" (σ near 0.99 and 0.01).
        weight_range: half-width of the range that the gates' weights are drawn from.
        candidate_scale: the gradient, as an input and as the candidate −∇, is multiplied by it. The
            authors' program has 1/(N·k), a second mean over the support set; the equation 1.
        memory: `"all"`, the equation; with `"none"` every step starts from the memory of the first one, so
            that the same network has no state.
        learn_lr: `"parameter"` learns a step size α ∈ Rⁿ, from 1, for the second term, α⊙i⊙∇; `"none"` has
            α = 1, the equation.
    """

    elementwise = True
    coordinatewise = True

    def __init__(
        self,
        layout: ParameterLayout,
        hidden: int = 0,
        inputs: Sequence[Literal["grad", "loss"]] = ("grad", "loss"),
        preprocess: Literal["none", "log"] = "none",
        previous_gate: Literal["sigmoid", "logit"] = "sigmoid",
        forget_bias: tuple[float, float] = (4.0, 6.0),
        input_bias: tuple[float, float] = (-5.0, -4.0),
        weight_range: float = 0.01,
        candidate_scale: float = 1.0,
        memory: Literal["all", "none"] = "all",
        learn_lr: Literal["none", "parameter"] = "none",
    ) -> None:
        super().__init__()
        if isinstance(hidden, bool) or not isinstance(hidden, int) or hidden < 0:
            raise UsageError(f"hidden must be an integer >= 0, got {hidden!r}")
        for name, bounds in (("forget_bias", forget_bias), ("input_bias", input_bias)):
            if not _is_range(bounds):
                raise UsageError(f"{name} must be two numbers [low, high], low <= high, got {bounds!r}")
        for name, number in (("weight_range", weight_range), ("candidate_scale", candidate_scale)):
            if not _is_number(number) or number < 0:
                raise UsageError(f"{name} must be a number >= 0, got {number!r}")
        _require_known(
            *(("input", given, INPUTS) for given in inputs),
            ("preprocess", preprocess, ("none", "log")),
            ("previous_gate", previous_gate, ("sigmoid", "logit")),
            ("memory", memory, ("all", "none")),
            ("learn_lr", learn_lr, ("none", "parameter")),
        )
        if not inputs:
            raise UsageError(f"inputs must name at least one of {', '.join(INPUTS)}")
        self.hidden, self.log, self.logit = hidden, preprocess == "log", previous_gate == "logit"
        self.inputs = [name for name in INPUTS if name in inputs]
        self.uses_loss = "loss" in self.inputs
        self.candidate_scale, self.remembers = candidate_scale, memory == "all"
        self.coordinatewise = learn_lr == "none"
        columns = len(self.inputs) * (2 if self.log else 1)
        features = (hidden or columns) + 2
        self.forget_gate = _gate(features, weight_range, forget_bias)
        self.input_gate = _gate(features, weight_range, input_bias)
        if hidden:
            self.input_map, self.hidden_map = _first_layer(columns, hidden)
        if learn_lr == "parameter":
            self.alpha = nn.Parameter(torch.ones(layout.size))

    def init_state(self, theta: Tensor) -> State:
        return self._blank(theta) if self.remembers else ()

    def _blank(self, theta: Tensor) -> Memory:
        wide = theta.unsqueeze(-2).expand(*theta.shape[:-1], self.hidden, theta.shape[-1])
        return Memory(*map(torch.zeros_like, (theta, theta, wide, wide)))

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        grad = self.candidate_scale * signal.grad
        memory = state if self.remembers else self._blank(theta)
        forget, step, output, cell = self._gate_inputs(self._columns(grad, signal), theta, memory)
        f, i = torch.sigmoid(forget), torch.sigmoid(step)
        change = self.alpha * i * grad if hasattr(self, "alpha") else i * grad
        previous = (forget, step) if self.logit else (f, i)
        return f * theta - change, Memory(*previous, output, cell) if self.remembers else ()

    def _gate_inputs(self, columns: list[Tensor], theta: Tensor, state: Memory) -> Memory:
        """W·[features, θ, previous gate] + b of both gates, and the first layer's state."""
        gates = (self.forget_gate, self.input_gate)
        if not self.hidden:
            forget, step = (
                _linear(gate, [*columns, theta, previous])
                for gate, previous in zip(gates, state, strict=False)
            )
            return Memory(forget, step, state.output, state.cell)
        weight = torch.cat([self.input_map.weight, self.hidden_map.weight], 1)
        bias = self.input_map.bias + self.hidden_map.bias
        readout = torch.cat([gate.weight[:, : self.hidden] for gate in gates])
        features, output, cell = coordinatewise_cell(columns, state.output, state.cell, weight, bias, readout)
        forget, step = (
            feature + gate.weight[0, -2] * theta + gate.weight[0, -1] * previous + gate.bias
            for feature, gate, previous in zip(features, gates, state, strict=False)
        )
        return Memory(forget, step, output, cell)

    def _columns(self, grad: Tensor, signal: Signal) -> list[Tensor]:
        """The inputs, gradient, then loss, each `[..., n]`."""
        columns = []
        for name in self.inputs:
            x = grad if name == "grad" else signal.loss.unsqueeze(-1).expand_as(grad)
            columns += log_and_sign(x) if self.log else [x]
        return columns


def _require_known(*options: tuple[str, str, Sequence[str]]) -> None:
    """Raise UsageError at the first (name, value, known values) whose value is not known."""
    for name, value, known in options:
        if value not in known:
            raise unknown(name, str(value), known)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return all(map(_is_number, value)) and bool(value[0] <= value[1])


def _gate(features: int, weight_range: float, bias_range: tuple[float, float]) -> nn.Linear:
    gate = nn.Linear(features, 1)
    nn.init.uniform_(gate.weight, -weight_range, weight_range)
    nn.init.uniform_(gate.bias, *bias_range)
    return gate


def _first_layer(columns: int, hidden: int) -> tuple[nn.Linear, nn.Linear]:
    """The maps of the inputs and of the hidden state to four gates, drawn as torch draws an `nn.LSTMCell`."""
    maps = nn.Linear(columns, 4 * hidden), nn.Linear(hidden, 4 * hidden)
    for parameter in (parameter for layer in maps for parameter in layer.parameters()):
        nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)
    return maps


def _linear(gate: nn.Linear, columns: Sequence[Tensor]) -> Tensor:
    """W·columns + b for every coordinate: `[..., n]`."""
    logits: Tensor = gate(torch.stack(list(columns), -1)).squeeze(-1)
    return logits


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"lstm": LSTM}
