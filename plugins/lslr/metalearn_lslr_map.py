"""LSLR on the map of what rules can express: what it contains, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from metalearn_core import ParameterLayout, Signal, State, UpdateRule, hookimpl
from metalearn_core.testing import CrossedEdge, RuleMap
from metalearn_core.testing.theory.invariants import treats_a_tensor_alike


class Schedule(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − α⁽ᵗ⁾ ∇L(θ⁽ᵗ⁾): gradient descent with another α at each of five steps."""

    uses_step = True
    elementwise = True

    def __init__(self, layout: ParameterLayout) -> None:
        super().__init__()
        self.inner_lrs = nn.Parameter(torch.rand(5, 1))

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        return theta - self.inner_lrs[signal.step] * signal.grad, state


def same_rates(special: UpdateRule, general: UpdateRule) -> dict[str, Tensor]:
    """The special rule's rates, `[tensors]` or `[steps, 1]`, for every step and tensor."""
    shape = general.get_parameter("inner_lrs").shape
    return {"inner_lrs": next(special.parameters()).detach().expand(shape)}


def any_rates(rule: UpdateRule, generator: torch.Generator) -> None:
    """Rates of either sign."""
    nn.init.normal_(next(rule.parameters()), std=0.3, generator=generator)


def place(rule_map: RuleMap) -> None:
    """Above one α for each tensor, hence gradient descent, and schedules; not above Meta-SGD."""
    from metalearn_core.testing import Separation

    for node, special, options, why in (
        ("per-tensor", "gradient-descent", {"learn_lr": "tensor"}, "the same rates at every step"),
        ("schedule", Schedule, {}, "the same rates for every tensor"),
    ):
        rule_map.place(
            "lslr", title="LSLR", contains=node, special=special, general="lslr", parameterise=same_rates,
            special_options=options, draw_phi=any_rates, bitwise=True, why=why,
        )  # fmt: skip
    claim = Separation(
        "lslr", "gradient-descent", treats_a_tensor_alike,
        special_options={"learn_lr": "parameter"}, special_phi={"inner_lr": [0.1, 0.9, 0.1]},
    )  # fmt: skip
    keeps = "coordinates of one tensor with the same θ and ∇ stay the same"
    rule_map.connect(CrossedEdge("meta-sgd", "lslr", keeps, "two rates in one tensor", True, (claim,)))


@hookimpl
def metalearn_map() -> Mapping[str, Callable[[RuleMap], None]]:
    """Its place, by its name."""
    return {"lslr": place}
