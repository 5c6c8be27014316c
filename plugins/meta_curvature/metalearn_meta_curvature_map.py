"""Meta-Curvature on the map of what rules can express: what it contains, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from metalearn_core import UpdateRule, hookimpl
from metalearn_core.testing import CrossedEdge, Probe, RuleMap


def scaled_identities(special: UpdateRule, general: UpdateRule) -> dict[str, Tensor]:
    """M_o = αₗ I for each tensor l, every other M the identity: with α = 1 the step is −αₗ ∇ₗL."""
    rates = special.get_parameter("inner_lr").detach()
    outer = [(name, m) for name, m in general.named_parameters() if name.endswith(".out")]
    return {
        name: rate * torch.eye(len(m), dtype=m.dtype) for (name, m), rate in zip(outer, rates, strict=True)
    }


def any_rates(rule: UpdateRule, generator: torch.Generator) -> None:
    """Rates of either sign."""
    nn.init.normal_(rule.get_parameter("inner_lr"), std=0.3, generator=generator)


def can_be_restarted(rule: UpdateRule, probe: Probe) -> float:
    """Where the gradient is constant, two steps are one, and one more of a new inner loop."""
    from metalearn_core.testing.theory.separation import path

    grad = probe.normal(probe.n, salt=1)
    _, once, twice = path(rule, probe.normal(probe.n), grad, 2)
    return float((path(rule, once, grad, 1)[-1] - twice).abs().max() / twice.abs().max())


def keeps_coordinates_apart(rule: UpdateRule, probe: Probe) -> float:
    """The gradient of one coordinate does not change the step of another."""
    from metalearn_core.testing.theory.separation import path

    theta, grad = probe.normal(probe.n), probe.normal(probe.n, salt=1)
    other = torch.cat([grad[:1] + 1, grad[1:]])
    ends = [path(rule, theta, g, probe.steps)[-1] for g in (grad, other)]
    return float((ends[0] - ends[1])[1:].abs().max() / ends[0].abs().max())


def place(rule_map: RuleMap) -> None:
    """Above one α for each tensor, hence gradient descent; not above momentum, nor below Meta-SGD."""
    from metalearn_core.testing import Probe, Separation

    name, descent = "meta-curvature", "gradient-descent"
    rule_map.place(
        name, title="Meta-Curvature", contains="per-tensor", special=descent, general=name,
        parameterise=scaled_identities, special_options={"learn_lr": "tensor"}, draw_phi=any_rates,
        general_options={"inner_lr": 1.0}, bitwise=True, why="multiples of the identity",
    )  # fmt: skip
    restarts = Separation(name, descent, can_be_restarted, special_options={"momentum": 0.9, "inner_lr": 0.1})
    said = "nothing but θ is carried from step to step"
    rule_map.connect(CrossedEdge("momentum", name, said, "the second step is longer", True, (restarts,)))
    apart = Separation(
        descent, name, keeps_coordinates_apart, {"learn_lr": "parameter"},
        special_phi={"curvatures.0.out": [[1.0, 0.0], [0.5, 1.0]]}, witness=Probe(n=3),
    )  # fmt: skip
    said = "the gradient of one coordinate does not move another"
    rule_map.connect(CrossedEdge(name, "meta-sgd", said, "M_o is not diagonal", True, (apart,)))


@hookimpl
def metalearn_map() -> Mapping[str, Callable[[RuleMap], None]]:
    """Its place, by its name."""
    return {"meta-curvature": place}
