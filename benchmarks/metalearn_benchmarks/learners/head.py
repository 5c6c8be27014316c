"""The head of a base-learner: its last layer, which a method may adapt alone."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from metalearn_core import BaseLearner


class Head:
    """The last layer of a base-learner. A method with `adapts = "head"` adapts it alone.

    Args:
        learner: The base-learner.
    """

    def __init__(self, learner: BaseLearner) -> None:
        self.learner = learner

    @cached_property
    def name(self) -> str:
        """The name of the last submodule that has parameters of its own."""
        own: list[str] = [
            name
            for name, part in self.learner.module.named_modules()
            if any(p.requires_grad for p in part.parameters(recurse=False))
        ]
        return own[-1]

    def owns(self, parameter: str) -> bool:
        """Tell whether the parameter of this name is the head's."""
        return parameter.startswith(f"{self.name}.") or not self.name

    def freeze_body(self, theta: Tensor) -> tuple[BaseLearner, Tensor]:
        """Freeze everything but the head.

        Args:
            theta: The parameters of the whole network, `[n]`.

        Returns:
            The base-learner with only the head's parameters left to adapt, and those parameters, `[n_head]`.
        """
        module = self.learner.module_at(theta)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(self.owns(name) and parameter.requires_grad)
        head = self.learner.with_module(module)
        parameters = dict(module.named_parameters())
        return head, head.layout.flatten({n: parameters[n].detach() for n in head.layout.names})
