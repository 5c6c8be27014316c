"""Rules made for an example: their options drawn, their own draws seeded, their φ written into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from metalearn_core.errors import UsageError, unknown
from metalearn_core.learner import BaseLearner
from metalearn_core.registry import make_rule
from metalearn_core.rule import UpdateRule
from metalearn_core.training.parameters import ParameterLayout, forked_rng

if TYPE_CHECKING:
    from hypothesis import strategies as st

from metalearn_core.testing.theory.statement import Maker


def make_seeded_rule(maker: Maker, learner: BaseLearner, options: Mapping[str, Any], seed: int) -> UpdateRule:
    """A rule for a learner, what it draws seeded, in the learner's dtype; claims say if it mixes tasks."""
    layout: ParameterLayout = learner.layout
    with forked_rng(torch.Generator().manual_seed(seed)):
        rule = make_rule(maker, layout, **options) if isinstance(maker, str) else maker(layout, **options)
    rule.check_first_update = False
    return rule.to(learner.dtype)


def load_phi(rule: UpdateRule, phi: Mapping[str, Any]) -> None:
    """Write φ into a rule. Raises UsageError for a name or a shape that it does not have."""
    parameters = dict(rule.named_parameters())
    for name, value in phi.items():
        if name not in parameters:
            raise unknown("meta-parameter", name, parameters)
        given = torch.as_tensor(value, dtype=parameters[name].dtype)
        if given.shape != parameters[name].shape:
            raise UsageError(
                f"parameterise: {name} of {rule.label} has shape {tuple(parameters[name].shape)},"
                f" got {tuple(given.shape)}"
            )
        parameters[name].copy_(given)


def run_property(holds: Callable[[], None], examples: int | None) -> None:
    """Run a property as the profile says, or on so many examples; how long one takes says nothing."""
    import hypothesis

    profile = hypothesis.settings()
    settings = hypothesis.settings(
        profile,
        max_examples=profile.max_examples if examples is None else examples,
        deadline=None,
        suppress_health_check=[*profile.suppress_health_check, hypothesis.HealthCheck.too_slow],
    )
    settings(holds)()


def draw_value(draw: st.DrawFn, value: Any) -> Any:
    """An option's value, where it is a strategy drawn from it."""
    from hypothesis import strategies as st

    return draw(value) if isinstance(value, st.SearchStrategy) else value
