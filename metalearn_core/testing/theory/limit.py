"""Where a claim in the limit fails: in one step, and in all of them together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.inner_loop import trajectory
from metalearn_core.rule import State, UpdateRule
from metalearn_core.settings import Clipping
from metalearn_core.signal import Signal, UndeclaredField
from metalearn_core.testing.problems import SMOOTH, Problem
from metalearn_core.testing.theory.statement import Example, NothingToCompareError, Statement

HUGE, VANISHING = 1e30, 1e-100
"""From where on nothing is compared in the limit, and the closeness at which every bound must be about 0."""


def gaps(claim: Statement, special: UpdateRule, general: UpdateRule, example: Example) -> Iterator[str]:
    """Where an edge in the limit is not one: in one step, and in all of them together."""
    assert claim.gap is not None
    problem, close = example.problem, example.closeness
    both, arguments = SideBySide(general, special), (problem.learner, problem.theta, problem.task.support)
    settings: dict[str, Any] = {"steps": problem.steps, "clip": claim.clip}
    path = [(x.detach(), s) for x, s in trajectory(both, *arguments, **settings)]
    target = [theta.detach() for theta, _ in trajectory(special, *arguments, **settings)]
    grads: list[Tensor] = []
    error, accumulates = (
        torch.zeros(problem.tasks, dtype=problem.theta.dtype),
        _accumulates(special, problem),
    )
    for t, ((theta, _), (after, state)) in enumerate(pairwise(path)):
        grads.append(state.grad.detach())
        if not bool((state.other.abs() + grads[-1].abs() < HUGE).all()):
            raise NothingToCompareError(f"the special rule goes beyond {HUGE:g} after {t + 1} steps")
        gap = torch.as_tensor(claim.gap(special, close, theta, grads)).expand_as(theta)
        eps = torch.finfo(theta.dtype).eps
        rounding = 64 * eps * (theta.abs() + (after - theta).abs())
        rounding = rounding + claim.cancellation * eps / close
        strayed = (after - state.other.detach()).abs()
        if not bool((strayed <= gap + rounding).all()):
            excess = float((strayed - gap - rounding).max())
            yield f"step {t} strays by {float(strayed.max()):.3g}, {excess:.3g} more than its bound"
        limit = torch.as_tensor(claim.gap(special, VANISHING * close, theta, grads))
        if not bool((limit <= rounding + 1e-9 * (1 + theta.abs() + grads[-1].abs())).all()):
            yield f"the bound at step {t} does not go to 0 with closeness"
        if not accumulates:
            continue
        growth = _growth(special, problem, t, target[t], theta, claim.clip)
        error = (gap + rounding).norm(dim=-1) + growth * error
        distance = (after - target[t + 1]).norm(dim=-1)
        if not bool((distance <= error * (1 + 1e-9) + 64 * eps * target[t + 1].norm(dim=-1)).all()):
            yield f"after step {t} θ is {distance.tolist()} away, the bound is {error.tolist()}"


@attrs.frozen
class _Both:
    general: State
    special: State
    other: Tensor
    grad: Tensor


pytree.register_pytree_node(
    _Both, lambda b: ([b.general, b.special, b.other, b.grad], None), lambda parts, _: _Both(*parts)
)


class SideBySide(UpdateRule):
    """Follows the general rule, and remembers where the special one would have gone from the same θ."""

    def __init__(self, general: UpdateRule, special: UpdateRule) -> None:
        super().__init__()
        self.general, self.special = general, special
        self.uses_loss = general.uses_loss or special.uses_loss
        self.uses_step = general.uses_step or special.uses_step
        self.elementwise = general.elementwise and special.elementwise
        self.check_first_update = general.check_first_update and special.check_first_update

    def init_state(self, theta: Tensor) -> _Both:
        states = self.general.init_state(theta), self.special.init_state(theta)
        return _Both(*states, torch.zeros_like(theta), torch.zeros_like(theta))

    def update(self, theta: Tensor, signal: Signal, state: _Both) -> tuple[Tensor, _Both]:
        after, general = self.general.update(theta, signal, state.general)
        other, special = self.special.update(theta, signal, state.special)
        return after, _Both(general, special, other, signal.grad)


def _accumulates(special: UpdateRule, problem: Problem) -> bool:
    """Whether all steps together are bounded as well: one task of a smooth network, a rule without state."""
    stateless = not pytree.tree_leaves(special.init_state(problem.theta))
    return stateless and problem.tasks == 1 and problem.architecture.activation in SMOOTH


def _growth(
    special: UpdateRule, problem: Problem, step: int, ours: Tensor, theirs: Tensor, clip: Clipping | None
) -> float:
    """Λ: the largest ‖∂(special step)/∂θ‖ at nine points between two vectors; a clipped one grows less."""
    support = problem.task[0].support

    def moved(theta: Tensor) -> Tensor:
        grad, loss = torch.func.grad_and_value(problem.learner.loss)(theta, support)
        grad = grad if clip is None else clip(grad)
        signal = Signal(
            grad,
            loss if special.uses_loss else UndeclaredField(special.label),
            step if special.uses_step else UndeclaredField(special.label),
        )
        return special.update(theta, signal, special.init_state(theta))[0]

    weights = torch.linspace(0, 1, 9, dtype=ours.dtype).unsqueeze(-1)
    jacobians = torch.func.vmap(torch.func.jacrev(moved))(ours[0] + weights * (theirs[0] - ours[0]))
    return 1.05 * float(torch.linalg.matrix_norm(jacobians.detach(), 2).max())
