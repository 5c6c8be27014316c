"""What the author of an update rule tests it with: its laws, its place among other rules, problems to draw.

`check_update_rule(MyRule)` says which laws hold, `parametrize_with_laws` makes each a test, and
`assert_subsumes` says whether one rule contains another.
`strategies` and what is built on them need `metalearn-core[testing]`; names load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalearn_core.testing.kit import KIT_VERSION, Result, Tier, check_update_rule
    from metalearn_core.testing.laws import LAWS, Law, MakeRule
    from metalearn_core.testing.laws.slow import SLOW_LAWS
    from metalearn_core.testing.outer_gradients import META_GRADIENT_LAWS, check_meta_gradient
    from metalearn_core.testing.parametrize import parametrize_with_laws
    from metalearn_core.testing.problems import (
        Architecture,
        ConvolutionalArchitecture,
        OddArchitecture,
        Problem,
    )
    from metalearn_core.testing.theory.map_parts import CrossedEdge, Edge, Node
    from metalearn_core.testing.theory.rule_map import RuleMap
    from metalearn_core.testing.theory.separation import Probe, Separation, assert_separates
    from metalearn_core.testing.theory.statement import Example
    from metalearn_core.testing.theory.subsumption import Subsumption, assert_subsumes
    from metalearn_core.testing.tiny_tasks import TinySines, tiny_learner

__all__ = [
    "KIT_VERSION",
    "LAWS",
    "META_GRADIENT_LAWS",
    "SLOW_LAWS",
    "Architecture",
    "ConvolutionalArchitecture",
    "CrossedEdge",
    "Edge",
    "Example",
    "Law",
    "MakeRule",
    "Node",
    "OddArchitecture",
    "Probe",
    "Problem",
    "Result",
    "RuleMap",
    "Separation",
    "Subsumption",
    "Tier",
    "TinySines",
    "assert_separates",
    "assert_subsumes",
    "check_meta_gradient",
    "check_update_rule",
    "parametrize_with_laws",
    "tiny_learner",
]

_PUBLIC = {
    "kit": "KIT_VERSION Result Tier check_update_rule",
    "laws": "LAWS Law MakeRule",
    "outer_gradients": "META_GRADIENT_LAWS check_meta_gradient",
    "parametrize": "parametrize_with_laws",
    "problems": "Architecture ConvolutionalArchitecture OddArchitecture Problem",
    "theory.rule_map": "CrossedEdge Edge Node RuleMap",
    "theory.separation": "Probe Separation assert_separates",
    "laws.slow": "SLOW_LAWS",
    "theory.statement": "Example",
    "theory.subsumption": "Subsumption assert_subsumes",
    "tiny_tasks": "TinySines tiny_learner",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
