"""The proofs of the edges between gradient descent and torch's optimisers: see `subsumptions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from metalearn_benchmarks.theory import parameterisations as as_
from metalearn_benchmarks.theory.references import ExponentialAverage, Schedule, descent
from metalearn_benchmarks.theory.subsumptions import ALPHA, BETA, DECAY, FLOATS, at_any_rate, draw_phi
from metalearn_core.testing import Subsumption
from metalearn_core.testing import strategies as draws

META_SGD_IS_GRADIENT_DESCENT = at_any_rate(
    "gradient-descent", descent, as_.one_alpha_each,
    {"learn_lr": "parameter"}, bitwise=True, problems=FLOATS,
)  # fmt: skip
PER_TENSOR_IS_GRADIENT_DESCENT = at_any_rate(
    "gradient-descent", descent, as_.one_alpha_each,
    {"learn_lr": "tensor"}, bitwise=True, problems=FLOATS,
)  # fmt: skip
META_SGD_IS_PER_TENSOR = Subsumption(
    "gradient-descent", "gradient-descent", as_.one_alpha_each,
    {"learn_lr": "parameter"}, {"learn_lr": "tensor"}, draw_phi, bitwise=True, problems=FLOATS,
)  # fmt: skip
SCHEDULE_IS_GRADIENT_DESCENT = at_any_rate(
    Schedule, descent, as_.constant_schedule, bitwise=True, problems=FLOATS
)
AVERAGE_IS_MOMENTUM = Subsumption(
    ExponentialAverage, descent, as_.nothing,
    {"beta": lambda s: s["momentum"], "inner_lr": lambda s: s["inner_lr"] / (1 - s["momentum"])},
    {**ALPHA, "momentum": BETA},
)  # fmt: skip
MOMENTUM_IS_AN_AVERAGE = Subsumption(
    "gradient-descent", ExponentialAverage, as_.nothing,
    {"momentum": lambda s: s["beta"], "inner_lr": lambda s: s["inner_lr"] * (1 - s["beta"])},
    {**ALPHA, "beta": BETA},
)  # fmt: skip
AVERAGED_SGD_IS_GRADIENT_DESCENT = at_any_rate(
    "gradient-descent", descent, as_.nothing,
    {"optimizer": "asgd", "lambd": 0.0, "inner_lr": lambda s: s["inner_lr"]},
)  # fmt: skip
AVERAGED_SGD_IS_WEIGHT_DECAY = Subsumption(
    "gradient-descent", descent, as_.nothing,
    {
        "optimizer": "asgd", "alpha": 0.0, "lambd": lambda s: s["weight_decay"],
        "inner_lr": lambda s: s["inner_lr"],
    },
    {**ALPHA, "weight_decay": DECAY},
)  # fmt: skip


def _a_little_decay(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """αλ|θ|, λ = c."""
    return float(special.alpha) * closeness * theta.abs()


WEIGHT_DECAY_NEARS_GRADIENT_DESCENT = at_any_rate(
    "gradient-descent", descent, as_.nothing,
    {"inner_lr": lambda s: s["inner_lr"], "weight_decay": lambda s, c: c}, gap=_a_little_decay,
)  # fmt: skip


def _small_next_to_epsilon(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """α∇/(1 + c√v) is αc√v|∇| from α∇ or nearer, √v at most the largest of all gradients, or their norm."""
    roots = torch.stack([grad**2 for grad in grads]).sum(0).sqrt()
    return float(special.alpha) * closeness * grads[-1].abs() * roots


def _small_next_to_both_epsilons(
    special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]
) -> Tensor:
    """|√(1 + x) − 1| <= |x|, x = (u − v)/(v + 1/c), u the mean square of updates: <= 2G² where cG² <= ½."""
    largest = torch.stack(list(grads)).abs().amax(0)
    small = closeness * largest**2 <= 0.5
    bound = 2 * float(special.alpha) * closeness * grads[-1].abs() * largest**2
    return torch.where(small, bound, torch.full_like(bound, torch.inf))


def _with_large_epsilon(optimizer: str, gap: Any = _small_next_to_epsilon, **options: Any) -> Subsumption:
    """(α/c)∇/(√v + 1/c) → α∇ as c → 0."""
    rate = (lambda s, c: s["inner_lr"]) if optimizer == "adadelta" else (lambda s, c: s["inner_lr"] / c)
    chosen = {"optimizer": optimizer, "inner_lr": rate, "eps": lambda s, c: 1 / c, **options}
    return at_any_rate("gradient-descent", descent, as_.nothing, chosen, gap=gap)


def _remembered(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """αβv, v = Σ βᵏ∇ at most the sum of all gradients so far."""
    return float(special.alpha) * closeness * torch.stack([grad.abs() for grad in grads]).sum(0)


NESTEROV_NEARS_GRADIENT_DESCENT = at_any_rate(
    "gradient-descent", descent, as_.nothing,
    {"inner_lr": lambda s: s["inner_lr"], "momentum": lambda s, c: c, "nesterov": True}, gap=_remembered,
)  # fmt: skip
SQUARES = st.floats(0.1, 0.999)
ADAM_NEARS_GRADIENT_DESCENT = _with_large_epsilon("adam", betas=st.tuples(st.just(0.0), SQUARES))
ADAMAX_NEARS_GRADIENT_DESCENT = _with_large_epsilon("adamax", betas=st.tuples(st.just(0.0), SQUARES))
RMSPROP_NEARS_GRADIENT_DESCENT = _with_large_epsilon("rmsprop", alpha=SQUARES)
ADAGRAD_NEARS_GRADIENT_DESCENT = _with_large_epsilon("adagrad")
ADADELTA_NEARS_GRADIENT_DESCENT = _with_large_epsilon("adadelta", _small_next_to_both_epsilons, rho=SQUARES)


def _forgotten(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """S less Σ ρᵏ∇² is at most tcS after t steps, its root tc√S, and ∇ no more than what it is divided by."""
    return float(special.alpha) * closeness * (len(grads) - 1) * torch.ones_like(theta)


RMSPROP_NEARS_ADAGRAD = Subsumption(
    "gradient-descent", "gradient-descent", as_.nothing,
    {
        "optimizer": "rmsprop", "alpha": lambda s, c: 1 - c,
        "inner_lr": lambda s, c: s["inner_lr"] * c**0.5, "eps": lambda s, c: s["eps"] * c**0.5,
    },
    {"optimizer": "adagrad", "inner_lr": draws.inner_lrs(), "eps": st.sampled_from([1e-8, 1e-3, 1.0])},
    gap=_forgotten, closeness=st.integers(1, 30).map(lambda k: 2.0**-k),
)  # fmt: skip
