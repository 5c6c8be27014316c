"""ALFA on the map of what rules can express: what it contains, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from metalearn_core import ParameterLayout, Signal, State, UpdateRule, hookimpl
from metalearn_core.testing import CrossedEdge, RuleMap
from metalearn_core.testing.theory.invariants import treats_a_tensor_alike


class WeightDecay(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − α(∇L(θ⁽ᵗ⁾) + λθ⁽ᵗ⁾)."""

    elementwise = True

    def __init__(self, layout: ParameterLayout) -> None:
        super().__init__()
        self.alpha, self.decay = nn.Parameter(torch.tensor(0.1)), nn.Parameter(torch.tensor(0.1))

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        return theta - self.alpha * (signal.grad + self.decay * theta), state


def same_rates(special: UpdateRule, general: UpdateRule) -> dict[str, Tensor]:
    """A = αₗ at every step; b and g stay 1, as they start."""
    return {"a": special.get_parameter("inner_lr").detach().expand(general.get_parameter("a").shape)}


def decaying(special: UpdateRule, general: UpdateRule) -> dict[str, Tensor]:
    """A = α and b = 1 − αλ at every step and tensor, since θ − α(∇ + λθ) = (1 − αλ)θ − α∇."""
    alpha, decay = (parameter.detach() for parameter in special.parameters())
    like = torch.ones_like(general.get_parameter("a"))
    return {"a": alpha * like, "b": (1 - alpha * decay) * like}


def any_rates(rule: UpdateRule, generator: torch.Generator) -> None:
    """Rates of either sign."""
    for parameter in rule.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)


def place(rule_map: RuleMap) -> None:
    """Above one α for each tensor, hence gradient descent, and weight decay; not above Meta-SGD."""
    from metalearn_core.testing import Separation

    name, descent = "alfa", "gradient-descent"
    rule_map.place(
        name, title="ALFA", contains="per-tensor", special=descent, general=name, parameterise=same_rates,
        special_options={"learn_lr": "tensor"}, draw_phi=any_rates, bitwise=True, why="g is 1",
    )  # fmt: skip
    rule_map.place(
        name, contains="weight-decay", special=WeightDecay, general=name, parameterise=decaying,
        draw_phi=any_rates, why="β = 1 − αλ, and g is 1",
    )  # fmt: skip
    claim = Separation(
        name, descent, treats_a_tensor_alike,
        special_options={"learn_lr": "parameter"}, special_phi={"inner_lr": [0.1, 0.9, 0.1]},
    )  # fmt: skip
    keeps = "coordinates of one tensor with the same θ and ∇ stay the same"
    rule_map.connect(CrossedEdge("meta-sgd", name, keeps, "two rates in one tensor", True, (claim,)))


@hookimpl
def metalearn_map() -> Mapping[str, Callable[[RuleMap], None]]:
    """Its place, by its name."""
    return {"alfa": place}
