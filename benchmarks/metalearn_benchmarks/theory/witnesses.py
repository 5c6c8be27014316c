"""For each special rule one of its members, with which it breaks the laws that the map says it breaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch


@attrs.frozen
class Witness:
    """A rule with its options and φ, what is not given being as the rule draws it from the probe's seed."""

    rule: str
    options: Mapping[str, Any] = attrs.field(factory=dict)
    phi: Mapping[str, Any] = attrs.field(factory=dict)


def _descent(optimizer: str = "sgd", **options: Any) -> Witness:
    return Witness("gradient-descent", {"optimizer": optimizer, "inner_lr": 0.1, **options})


def _with_a_bump() -> Witness:
    """Its input gate is open for gradients near 2: tanh(4(∇ − 1.5)) − tanh(4(∇ − 2.5)) is read by it.

    The rows of its first layer are those of i, f, g, o, of 20 units each; i and o are open.
    """
    hidden = 20
    weight, bias = torch.zeros(4 * hidden, 1), torch.zeros(4 * hidden)
    candidate = slice(2 * hidden, 2 * hidden + 2)
    weight[candidate, 0], bias[candidate] = 4.0, torch.tensor([-6.0, -10.0])
    bias[:hidden], bias[3 * hidden :] = 10.0, 10.0
    readout = torch.zeros(1, hidden + 2)
    readout[0, :2] = torch.tensor([4.0, -4.0])
    phi = {
        "input_map.weight": weight.tolist(),
        "input_map.bias": bias.tolist(),
        "hidden_map.weight": torch.zeros(4 * hidden, hidden).tolist(),
        "hidden_map.bias": torch.zeros(4 * hidden).tolist(),
        "input_gate.weight": readout.tolist(),
        "input_gate.bias": [-3.0],
    }
    return Witness("lstm", {"hidden": hidden, "inputs": ["grad"]}, phi)


def _hungry_for_history() -> Witness:
    """θ + h: of its two columns, gradient and history, it heeds the second."""
    phi = {
        "network.0.weight": [[0.0, 1.0], [0.0, -1.0]],
        "network.2.weight": [[1.0, -1.0]],
    }
    return Witness("feed-forward", {"hidden": [2], "history": "grad", "beta": 0.5}, phi)


_TWO_RATES = {"inner_lr": [0.1, 0.9]}
_TWO_RATES_IN_A_TENSOR = {"inner_lr": [0.1, 0.9, 0.1]}
FORGETS = {"weight_range": 3.0}

WITNESSES: Mapping[str, Witness] = {
    "gradient-descent-below-1": _descent(),
    "per-tensor": Witness("gradient-descent", {"learn_lr": "tensor"}, _TWO_RATES),
    "meta-sgd": Witness("gradient-descent", {"learn_lr": "parameter"}, _TWO_RATES_IN_A_TENSOR),
    "weight-decay-below-1": _descent(weight_decay=0.5),
    "momentum": _descent(momentum=0.9),
    "nesterov": _descent(momentum=0.9, nesterov=True),
    "damped-momentum": _descent(momentum=0.9, dampening=0.9),
    "schedule": Witness("schedule", {}, {"inner_lrs": [0.1, 0.5, 0.3, 0.2, 0.4]}),
    "adam": _descent("adam"),
    "adamax": _descent("adamax", betas=[0.5, 0.9]),
    "rmsprop": _descent("rmsprop", alpha=0.9),
    "adagrad": _descent("adagrad"),
    "adadelta": _descent("adadelta", inner_lr=1.0, eps=1e-2),
    "asgd": _descent("asgd", inner_lr=0.5, lambd=0.5),
    "rprop": _descent("rprop"),
    "lstm": Witness("lstm", FORGETS),
    "lstm-hidden": Witness("lstm", {"hidden": 20, **FORGETS}),
    "feed-forward-linear": Witness("feed-forward", {"hidden": []}, {"network.0.bias": [0.5]}),
    "feed-forward": Witness("feed-forward"),
    "feed-forward-loss": Witness("feed-forward", {"inputs": ["grad", "loss"]}),
    "feed-forward-history": _hungry_for_history(),
}
GATES_OF_THE_GRADIENT = {
    "lstm": Witness(
        "lstm", {"inputs": ["grad"]},
        {"input_gate.weight": [[0.0, 0.0, 0.0]], "forget_gate.weight": [[1.0, 0.0, 0.0]]},
    ),
    "lstm-hidden": Witness(
        "lstm", {"inputs": ["grad"], "hidden": 20},
        {"input_gate.weight": [[0.0] * 22], "forget_gate.weight": [[10.0] * 20 + [0.0, 0.0]]},
    ),
}  # fmt: skip
"""f(∇)θ with an input gate that reads nothing."""
BUMP = {"lstm-hidden": _with_a_bump()}
