"""The optimiser of Metz et al. on the map of what rules can express: what it does not contain."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from metalearn_core import hookimpl
from metalearn_core.testing import CrossedEdge, Node, RuleMap
from metalearn_core.testing.theory.invariants import steps_are_bounded


def place(rule_map: RuleMap) -> None:
    """Not above gradient descent exactly; whether it is in the limit is open."""
    from metalearn_core.testing import Separation

    rule_map.add(
        Node(
            "mlp-optimizer",
            "MLP optimiser",
            says="Metz et al. (2019): a perceptron that reads gradient, θ and momenta, normalised",
            rule="mlp-optimizer",
        )
    )
    claim = Separation(
        "mlp-optimizer", "gradient-descent", steps_are_bounded, special_options={"inner_lr": 0.1}
    )
    edge = CrossedEdge(
        special="gradient-descent-below-1",
        general="mlp-optimizer",
        invariant="its steps are bounded, however large the gradient",
        witness="α∇ grows with it",
        closed=False,
        claims=(claim,),
    )
    rule_map.connect(edge)


@hookimpl
def metalearn_map() -> Mapping[str, Callable[[RuleMap], None]]:
    """Its place, by its name."""
    return {"mlp-optimizer": place}
