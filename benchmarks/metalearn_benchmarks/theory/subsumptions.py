"""The proofs of the map's edges: the φ that makes one rule the other, or brings it as near as asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from metalearn_benchmarks.theory import parameterisations as as_
from metalearn_benchmarks.theory.references import ExponentialAverage, Schedule, damped_descent, descent
from metalearn_core import Clipping, UpdateRule
from metalearn_core.testing import Subsumption
from metalearn_core.testing import strategies as draws

ALPHA = {"inner_lr": draws.inner_lrs()}
BETA = st.floats(0.0, 0.95)
DECAY = st.floats(0.01, 1.0)
HIDDEN = draws.widths()
FLOATS = draws.problems(dtype=draws.dtypes())


def draw_phi(rule: UpdateRule, generator: torch.Generator) -> None:
    """φ of either sign."""
    for parameter in rule.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


at_any_rate = functools.partial(Subsumption, special_options=ALPHA)

# The meta-learner LSTM: Theorem 1

GATED = {
    "hidden": st.sampled_from([0, 3, 20]),
    "inputs": st.sampled_from([["grad", "loss"], ["grad"], ["loss"]]),
    "preprocess": st.sampled_from(["none", "log"]),
    "previous_gate": st.sampled_from(["sigmoid", "logit"]),
    "candidate_scale": st.sampled_from([1.0, 2.0]),
}


def _epsilon_theta(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """ε|θ|, ε = 1 − σ(b_f); b_i is rounded, which is felt as |b_i| units in the last place of α."""
    rounded = (4 + abs(torch.logit(torch.tensor(special.alpha)))) * torch.finfo(theta.dtype).eps
    return closeness * theta.abs() + float(rounded * special.alpha) * grads[-1].abs()


LSTM_NEARS_GRADIENT_DESCENT = at_any_rate("lstm", descent, as_.nearly_open_gates, GATED, gap=_epsilon_theta)
LSTM_IS_GRADIENT_DESCENT_IN_FLOATS = at_any_rate("lstm", descent, as_.saturated_gates, GATED)
LSTM_IS_WEIGHT_DECAY = Subsumption(
    "lstm", descent, as_.decaying_gates, GATED, {**ALPHA, "weight_decay": DECAY}
)

# Feed-forward rules

FEED_FORWARD = {"hidden": HIDDEN}
LINEAR_IS_GRADIENT_DESCENT = at_any_rate(
    "feed-forward", descent, as_.carried_gradient, {"hidden": st.just([])}, bitwise=True, problems=FLOATS
)
FEED_FORWARD_IS_GRADIENT_DESCENT = at_any_rate(
    "feed-forward", descent, as_.carried_gradient, FEED_FORWARD, bitwise=True, problems=FLOATS
)
FEED_FORWARD_IS_LINEAR = Subsumption(
    "feed-forward", "feed-forward", as_.carried_line, FEED_FORWARD, {"hidden": st.just([])}, draw_phi
)
GELU_IS_LINEAR = Subsumption(
    "feed-forward", "feed-forward", as_.carried_line,
    {**FEED_FORWARD, "activation": "gelu"}, {"hidden": st.just([])}, draw_phi,
)  # fmt: skip
FEED_FORWARD_IS_META_SGD = Subsumption(
    "feed-forward", "gradient-descent", as_.carried_with_alpha,
    {**FEED_FORWARD, "learn_lr": "parameter"}, {"learn_lr": "parameter"}, draw_phi,
    bitwise=True, problems=FLOATS,
)  # fmt: skip
FEED_FORWARD_IS_WEIGHT_DECAY = Subsumption(
    "feed-forward", descent, as_.carried_decay,
    {**FEED_FORWARD, "inputs": st.just(["grad", "theta"])}, {**ALPHA, "weight_decay": DECAY},
)  # fmt: skip
HISTORY = {**FEED_FORWARD, "history": "grad"}
FEED_FORWARD_IS_AN_AVERAGE = Subsumption(
    "feed-forward", ExponentialAverage, as_.carried_average,
    {**HISTORY, "beta": lambda s: s["beta"]}, {**ALPHA, "beta": BETA},
)  # fmt: skip
FEED_FORWARD_IS_MOMENTUM = Subsumption(
    "feed-forward", descent, as_.carried_momentum,
    {**HISTORY, "beta": lambda s: s["momentum"]}, {**ALPHA, "momentum": BETA},
)  # fmt: skip
FEED_FORWARD_IS_NESTEROV = Subsumption(
    "feed-forward", descent, as_.carried_nesterov,
    {**HISTORY, "beta": lambda s: s["momentum"]},
    {**ALPHA, "momentum": st.floats(0.01, 0.95), "nesterov": True},
)  # fmt: skip


PROGRAM_IS_DAMPED_MOMENTUM = Subsumption(
    "feed-forward", damped_descent, as_.carried_history,
    {**HISTORY, "history_timing": "program", "beta": lambda s: s["momentum"]},
    {**ALPHA, "momentum": BETA},
)  # fmt: skip
UPDATES_ARE_MOMENTUM_AND_DECAY = Subsumption(
    "feed-forward", descent, as_.carried_last_update,
    {**FEED_FORWARD, "inputs": st.just(["grad", "theta"]), "history": "update", "beta": 0.0},
    {**ALPHA, "momentum": BETA, "weight_decay": DECAY},
)  # fmt: skip
UPDATES_ARE_NESTEROV = Subsumption(
    "feed-forward", descent, as_.carried_nesterov_update,
    {
        **FEED_FORWARD, "inputs": st.just(["grad", "theta"]), "history": "update",
        "beta": lambda s: s["momentum"] / (1 + s["momentum"]),
    },
    {**ALPHA, "momentum": st.floats(0.01, 0.95), "nesterov": True},
)  # fmt: skip

GATES_WIDE_ENOUGH = st.tuples(st.integers(12, 14), st.integers(10, 12), st.sampled_from([0, 10, 11])).map(
    lambda widths: [width for width in widths if width]
)
TIMED = {"hidden": GATES_WIDE_ENOUGH, "inputs": st.just(["grad", "step"])}


def _beyond_the_gates(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """0 where |∇| <= M; beyond, every other gate lets at most |∇| − M pass."""
    past = (grads[-1].abs() - 1 / closeness).clamp(min=0)
    return float(special.inner_lrs.detach().abs().sum()) * past


FEED_FORWARD_NEARS_A_SCHEDULE = Subsumption(
    "feed-forward", Schedule, as_.schedule_within, TIMED, draw_phi=draw_phi, gap=_beyond_the_gates
)
FEED_FORWARD_IS_A_SCHEDULE_UNDER_CLIPPING = Subsumption(
    "feed-forward", Schedule, as_.schedule_within_ten, TIMED, draw_phi=draw_phi, clip=Clipping("value", 10.0)
)


def _layers_of(power: float) -> Any:
    """α·L·|∇|³·s²/power for L hidden layers, each of which bends y by |y|³/power or less."""

    def gap(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
        return float(special.alpha) * MOST_LAYERS * closeness**2 * grads[-1].abs() ** 3 / power

    return gap


def _one_for_each_layer(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """elu(y) − elu(−y) is less than 1 from y, in each layer; what is small is multiplied by c."""
    return float(special.alpha) * MOST_LAYERS * closeness * torch.ones_like(theta)


MOST_LAYERS = 3
TANH_NEARS_GRADIENT_DESCENT = at_any_rate(
    "feed-forward", descent, as_.small_signal, {**FEED_FORWARD, "activation": "tanh"}, gap=_layers_of(3.0)
)
SIGMOID_NEARS_GRADIENT_DESCENT = at_any_rate(
    "feed-forward", descent, as_.small_sigmoid_signal, {**FEED_FORWARD, "activation": "sigmoid"},
    gap=_layers_of(12.0), cancellation=64.0, closeness=st.integers(1, 24).map(lambda k: 2.0**-k),
)  # fmt: skip
ELU_NEARS_GRADIENT_DESCENT = at_any_rate(
    "feed-forward", descent, as_.large_signal, {**FEED_FORWARD, "activation": "elu"}, gap=_one_for_each_layer
)

FEWER_AMONG_MORE_COLUMNS = Subsumption(
    "feed-forward", "feed-forward", as_.embedded,
    {
        "hidden": lambda s: s["hidden"],
        "inputs": st.sets(st.sampled_from(["loss", "theta", "step"])).map(lambda s: ["grad", *sorted(s)]),
        "history": st.sampled_from(["none", "grad", "update"]),
        "history_timing": st.sampled_from(["equation", "program"]),
        "beta": BETA,
        "learn_lr": st.sampled_from(["none", "parameter"]),
        "alpha_start": "uniform",
    },
    {"hidden": HIDDEN},
)  # fmt: skip
THETA_AMONG_MORE_COLUMNS = Subsumption(
    "feed-forward", "feed-forward", as_.embedded,
    {
        "hidden": lambda s: s["hidden"], "inputs": st.just(["grad", "theta"]), "history": "update",
        "beta": st.floats(0.0, 1.0),
    },
    {"hidden": HIDDEN, "inputs": st.just(["grad", "theta"])},
)  # fmt: skip
