"""The head of a base-learner: its last layer, which a method may adapt alone."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from metalearn_core import BaseLearner


class Head:
    """The last layer of a learner: what a method with `adapts = "head"` may touch."""

    def __init__(self, learner: BaseLearner) -> None:
        self.learner = learner

    @cached_property
    def name(self) -> str:
        """The last submodule that has parameters of its own."""
        own: list[str] = [
            name
            for name, part in self.learner.module.named_modules()
            if any(p.requires_grad for p in part.parameters(recurse=False))
        ]
        return own[-1]

    def owns(self, parameter: str) -> bool:
        """Whether the parameter of this name is the head's."""
        return parameter.startswith(f"{self.name}.") or not self.name

    def alone(self, theta: Tensor) -> tuple[BaseLearner, Tensor]:
        """The learner at θ `[n]` with all but the head frozen, and the head's own θ."""
        module = self.learner.module_at(theta)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(self.owns(name) and parameter.requires_grad)
        head = self.learner.with_module(module)
        parameters = dict(module.named_parameters())
        return head, head.layout.flatten({n: parameters[n].detach() for n in head.layout.names})
