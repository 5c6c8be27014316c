"""Adapt some of the parameters by any installed rule; the others are meta-learned and stay in the inner loop.

Raghu et al., "Rapid learning or feature reuse?" (2020): ANIL adapts the head alone. Oh et al., "BOIL" (2021):
the body alone. With a pattern such as `*lora*` it adapts the low-rank matrices of Hu et al., "LoRA" (2022).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_core import (
    ParameterLayout,
    Signal,
    State,
    SupportSet,
    UpdateRule,
    UsageError,
    hookimpl,
    make_rule,
)


class PartOfSupport(SupportSet):
    """The support set as a function of what adapts; `whole` puts that into θ."""

    def __init__(self, support: SupportSet, whole: Callable[[Tensor], Tensor]) -> None:
        super().__init__(
            support.batch, lambda part: support.loss(whole(part)), lambda part: support.predict(whole(part))
        )
        self._all = support

    def gradient(self, objective: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
        """The loop's order and clipping are those of the whole, for a function of what adapts."""
        return self._all.gradient(objective, theta)


class Partial(UpdateRule):
    """θₐ⁽ᵗ⁺¹⁾ = u(θₐ⁽ᵗ⁾, ∇ₐL(θ⁽ᵗ⁾)) for the parameters a that adapt; the others keep θ⁰.   φ: those of u.

    Both parts of θ⁰ are meta-learned: the query loss has a gradient for what is kept, too.

    Args:
        adapts: `"head"`, the last layer; `"body"`, all the others; or a pattern of names of parameters, such
            as `"encoder.*"`, or a list of patterns.
        rule: the name of the rule u. It is made for the parameters that adapt, as if there were no others.
        **options: those of that rule.

    Raises:
        UsageError: where no parameter fits, for an unknown rule, and for what that rule refuses.
    """

    def __init__(
        self,
        layout: ParameterLayout,
        adapts: str | Sequence[str] = "head",
        rule: str = "gradient-descent",
        **options: Any,
    ) -> None:
        super().__init__()
        chosen = _chosen(layout, adapts)
        fitting = [(n, s) for n, s, c in zip(layout.names, layout.shapes, chosen, strict=True) if c]
        part = ParameterLayout(tuple(name for name, _ in fitting), tuple(shape for _, shape in fitting))
        self.rule = make_rule(rule, part, **options)
        for capability in ("uses_loss", "uses_step", "uses_support", "elementwise"):
            setattr(self, capability, getattr(self.rule, capability))
        runs = itertools.groupby(zip(chosen, layout.sizes, strict=True), key=lambda pair: pair[0])
        self.runs = [(adapted, sum(size for _, size in run)) for adapted, run in runs]

    @property
    def has_start(self) -> bool:
        return self.rule.has_start

    def start(self, theta: Tensor, support: SupportSet) -> Tensor:
        return self._whole(theta, self.rule.start(self._part(theta), self._support(theta, support)))

    def init_state(self, theta: Tensor) -> State:
        return self.rule.init_state(self._part(theta))

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        own = attrs.evolve(signal, grad=self._part(signal.grad))
        if self.uses_support:
            own = attrs.evolve(own, support=self._support(theta, signal.support))
        part, state = self.rule.update(self._part(theta), own, state)
        return self._whole(theta, part), state

    def _support(self, theta: Tensor, support: SupportSet) -> SupportSet:
        return PartOfSupport(support, lambda part: self._whole(theta, part))

    def _part(self, theta: Tensor) -> Tensor:
        """What adapts of `[..., n]`."""
        pieces = zip(torch.split(theta, [size for _, size in self.runs], -1), self.runs, strict=True)
        return torch.cat([piece for piece, (adapted, _) in pieces if adapted], -1)

    def _whole(self, theta: Tensor, part: Tensor) -> Tensor:
        """θ with another value of what adapts."""
        moved = iter(torch.split(part, [size for adapted, size in self.runs if adapted], -1))
        pieces = zip(torch.split(theta, [size for _, size in self.runs], -1), self.runs, strict=True)
        return torch.cat([next(moved) if adapted else piece for piece, (adapted, _) in pieces], -1)


def _chosen(layout: ParameterLayout, adapts: object) -> list[bool]:
    """Of each parameter, whether it adapts."""
    patterns = [adapts] if isinstance(adapts, str) else adapts
    if not isinstance(patterns, list | tuple) or not all(isinstance(one, str) for one in patterns):
        raise UsageError(
            f'adapts must be "head", "body", a pattern of names or a list of them, got {adapts!r}'
        )
    head, dot, _ = layout.names[-1].rpartition(".") if layout.names else ("", "", "")
    of_head = [name.rpartition(".")[:2] == (head, dot) for name in layout.names]
    if adapts in ("head", "body"):
        chosen = [own == (adapts == "head") for own in of_head]
    else:
        chosen = [any(fnmatchcase(name, one) for one in patterns) for name in layout.names]
    if not any(chosen):
        raise UsageError(
            f"adapts = {adapts!r} fits no parameter; there are {', '.join(layout.names) or 'none'}"
        )
    return chosen


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"partial": Partial}
