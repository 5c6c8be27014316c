"""The steps of an update rule over a list of parameters."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.errors import RuleError, UsageError
from metalearn_core.inner_loop import gradient_for_rule, start_state, update_every_task
from metalearn_core.rule import State, UpdateRule
from metalearn_core.settings import Clipping
from metalearn_core.training.parameters import ParameterLayout


@attrs.define(eq=False)
class RuleStepper:
    """Takes the steps of a rule over a list of parameters; between two steps it holds the state and t.

    Args:
        rule: the update rule.
        layout: where each parameter lies in θ.
        clip: bounds the gradient before the rule sees it.
        constant: whether gradients and losses are taken for constants.
        rates: of each parameter the factor `lr` on its step: θ + lr (θ′ − θ), θ′ being the rule's answer.
        state: that of the rule, on a stack of one task.
        step: t, the number of steps taken.
    """

    rule: UpdateRule
    layout: ParameterLayout
    clip: Clipping | None
    constant: bool
    rates: Sequence[float] = ()
    state: State = None
    step: int = 0

    def __call__(
        self, params: Sequence[Tensor], grads: Sequence[Tensor | None], loss: Tensor, *, track: bool
    ) -> list[Tensor]:
        """The parameters after one more step; `track`: keep the graph."""
        constant = self.constant or not track
        with torch.set_grad_enabled(track):
            theta = self._flat(params)
            grad = self._flat([_dense(g, p) for g, p in zip(grads, params, strict=True)])
            if self.step == 0:
                self.state = start_state(self.rule, theta, track=track)
            shown = loss.detach() if constant else loss
            theta, self.state = update_every_task(
                self.rule, self.step, shown.reshape(1), theta,
                gradient_for_rule(constant, self.clip, grad), self.state,
            )  # fmt: skip
            self.step += 1
            answers = self.layout.unflatten(theta[0]).values()
            return [_part_of_step(*each) for each in zip(params, answers, self.rates, strict=True)]

    def start(self, params: Sequence[Tensor]) -> None:
        """Make the state at t = 0, and take no step."""
        self.state = start_state(self.rule, self._flat(params), track=False)

    def _flat(self, tensors: Sequence[Tensor]) -> Tensor:
        return self.layout.flatten(dict(zip(self.layout.names, tensors, strict=True))).unsqueeze(0)


def _part_of_step(before: Tensor, after: Tensor, rate: float) -> Tensor:
    # a rate of 1 changes no bit of the rule's answer, and 0 none of θ, whatever the answer is
    if rate == 1:
        return after
    return before if rate == 0 else before + rate * (after - before)


def _dense(grad: Tensor | None, parameter: Tensor) -> Tensor:
    if grad is None:
        return torch.zeros_like(parameter)
    return grad if grad.layout is torch.strided else grad.to_dense()


def example_state(stepper: RuleStepper, params: Sequence[Tensor]) -> State:
    """What the rule's state looks like, without values, found by a step that changes nothing.

    Raises UsageError for a rule that cannot take it.
    """
    theta = [parameter.detach() for parameter in params]
    try:
        stepper(theta, [None] * len(theta), theta[0].new_zeros(()), track=False)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, UsageError) and not isinstance(error, RuleError):
            raise
        raise UsageError(
            f"LearnedOptimizer: rule {stepper.rule.label} cannot update these"
            f" {stepper.layout.size} coordinates;"
            f" make it for their layout and dtype ({str(error).strip().splitlines()[0]})"
        ) from error
    return pytree.tree_map(lambda leaf: leaf.to("meta"), stepper.state)
