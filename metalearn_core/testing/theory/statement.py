"""What is claimed when one rule is said to contain another, and one example of it. Needs no hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import UsageError
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Clipping, Order
from metalearn_core.testing.arguments import (
    require_function,
    require_maker,
    require_options,
    require_strategy,
    takes_closeness,
)
from metalearn_core.testing.problems import Problem

if TYPE_CHECKING:
    from hypothesis import strategies as st

Maker: TypeAlias = str | Callable[..., UpdateRule]
"""A rule's registered name, its class, or any `make(layout, **options)`."""

Gap: TypeAlias = Callable[[UpdateRule, float, Tensor, Sequence[Tensor]], Tensor]
"""`gap(special, closeness, theta, grads) -> [..., n]`: how far one step of the general rule at θ,
`[..., n]`, may end from that of the special one; `grads` are all gradients so far."""


@attrs.frozen
class Example:
    """One case of a claim, in plain numbers: `seed` is that of what both rules draw."""

    problem: Problem
    special: Mapping[str, Any] = attrs.field(factory=dict)
    general: Mapping[str, Any] = attrs.field(factory=dict)
    seed: int = 0
    closeness: float = 0.0
    order: Order = "second"


@attrs.frozen
class Statement:
    """That `general` contains `special`, with all that says on which problems, and how closely."""

    general: Maker
    special: Maker
    parameterise: Callable[..., Mapping[str, Tensor]]
    general_options: Mapping[str, Any] = attrs.field(factory=dict)
    special_options: Mapping[str, Any] = attrs.field(factory=dict)
    draw_phi: Callable[[UpdateRule, torch.Generator], None] | None = None
    gap: Gap | None = None
    bitwise: bool = False
    cancellation: float = 0.0
    clip: Clipping | None = None
    problems: st.SearchStrategy[Problem] | None = None
    closeness: st.SearchStrategy[float] | None = None
    address: str = ""

    def __attrs_post_init__(self) -> None:
        for name in ("general", "special"):
            require_maker(name, getattr(self, name))
            require_options(f"{name}_options", getattr(self, f"{name}_options"))
        require_function(
            "parameterise", self.parameterise, 1, 2, "parameterise(special) or parameterise(special, general)"
        )
        for name in ("problems", "closeness"):
            if getattr(self, name) is not None:
                require_strategy(name, getattr(self, name))
        if self.gap is not None:
            require_function("gap", self.gap, 4, 4, "gap(special, closeness, theta, grads)")
            if not takes_closeness(self.parameterise):
                raise UsageError("parameterise: with a gap it must take the keyword closeness")


class NothingToCompareError(Exception):
    """The special rule has left the numbers: there is nothing to follow."""
