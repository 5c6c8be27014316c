"""The response of a trained rule: its updates for given gradients, and its steps on test tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from metalearn_core import BaseLearner, Batch, Clipping, Signal, Task, UpdateRule, trajectory

LOWEST_EXPONENT, HIGHEST_EXPONENT, POINTS_PER_DECADE = -4, 1, 4
"""The grid has gradients from 10^LOWEST_EXPONENT to 10^HIGHEST_EXPONENT, of both signs, and 0."""
QUANTILES = (0.1, 0.5, 0.9)
"""Quantiles over coordinates that are recorded of a rule that differs between coordinates."""
MAX_SHOWN_STEPS = 8
"""Steps of a path that are recorded, at most."""


def gradient_grid() -> list[float]:
    """Return the grid of gradients, ascending and symmetric. It is the same for every record."""
    count = (HIGHEST_EXPONENT - LOWEST_EXPONENT) * POINTS_PER_DECADE
    positive = [_round(10 ** (LOWEST_EXPONENT + k / POINTS_PER_DECADE)) for k in range(count + 1)]
    return [-g for g in reversed(positive)] + [0.0] + positive


@torch.no_grad()
def rule_response(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, tasks: Task, steps: int, clip: Clipping | None
) -> dict[str, Any] | None:
    """Measure what a rule does from θ⁰.

    Args:
        rule: The update rule.
        learner: The base-learner.
        theta: θ⁰, `[n]`.
        tasks: Tasks to adapt to, stacked.
        steps: T.
        clip: Clipping of support gradients, for the path.

    Returns:
        None where T = 0. Else two entries. `response` is the update θ⁽ᵗ⁺¹⁾ − θ⁽ᵗ⁾ of a coordinate against its
        gradient, or None for a rule that is not elementwise. `path` has statistics of the updates on the
        tasks.
    """
    if steps == 0:
        return None
    return {
        "response": _response(rule, theta, _mean_loss(learner, theta, tasks), steps),
        "path": _path(rule, learner, theta, tasks, steps, clip),
    }


def shown_steps(steps: int) -> list[int]:
    """Return the steps that are recorded: 0, T − 1, and others with growing distances between them."""
    spread = [round(steps ** (k / (MAX_SHOWN_STEPS - 1))) - 1 for k in range(MAX_SHOWN_STEPS)]
    return sorted({0, steps - 1, *spread}) if steps > MAX_SHOWN_STEPS else list(range(steps))


def _response(rule: UpdateRule, theta: Tensor, loss: float, steps: int) -> dict[str, Any] | None:
    """Return the updates of a coordinate at θ = 0 that sees the same gradient at all steps.

    Where all coordinates share one function, each gradient of the grid takes a coordinate and has one update.
    Elsewhere, as with an α for each coordinate, quantiles over the coordinates are taken for each gradient.
    """
    if not rule.elementwise:
        return None
    grid, n = theta.new_tensor(gradient_grid()), theta.numel()
    if rule.coordinatewise:
        # as many rows as the rule's own n makes necessary: it may know no other
        rows = grid.new_zeros(-(-len(grid) // n) * n)
        rows[: len(grid)] = grid
        kept = {
            t: [u.flatten()[: len(grid)].tolist()]
            for t, u in _updates_for_constant_gradient(rule, rows.view(-1, n), loss, steps)
        }
    else:
        kept = {t: [[] for _ in QUANTILES] for t in shown_steps(steps)}
        at = theta.new_tensor(QUANTILES)
        for g in grid:
            for t, update in _updates_for_constant_gradient(rule, g.expand(1, n), loss, steps):
                for values, value in zip(kept[t], torch.quantile(update[0], at).tolist(), strict=True):
                    values.append(value)
    return {
        "gradients": gradient_grid(),
        "loss": _round(loss),
        "quantiles": [0.5] if rule.coordinatewise else list(QUANTILES),
        "steps": list(kept),
        "updates": [[[_round(u) for u in values] for values in of_step] for of_step in kept.values()],
    }


def _updates_for_constant_gradient(
    rule: UpdateRule, grad: Tensor, loss: float, steps: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield (t, update) of the shown steps, for constant gradients `[rows, n]` at θ = 0."""
    theta, losses = torch.zeros_like(grad), grad.new_full((len(grad),), loss)
    state, shown = rule.init_state(theta), shown_steps(steps)
    for t in range(steps):
        moved, state = rule.update(theta, Signal(grad, losses, t), state)
        if t in shown:
            yield t, moved - theta


def _path(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, tasks: Task, steps: int, clip: Clipping | None
) -> dict[str, list[float]]:
    """Return means over tasks, for each shown step: sizes of gradient and update, and their alignment.

    Sizes are root mean squares over coordinates. The alignment is the cosine of the update and −∇L; it is 1
    for gradient descent.
    """
    found: dict[str, list[float]] = {"steps": [], "gradient": [], "update": [], "alignment": []}
    path, shown = trajectory(rule, learner, theta, tasks.support, steps=steps, clip=clip), shown_steps(steps)
    before, _ = next(path)
    for t, (after, _) in enumerate(islice(path, steps)):
        if t in shown:
            grad, update = _gradients(learner, before, tasks), after - before
            if clip is not None:
                grad = clip(grad)
            cosine = torch.nn.functional.cosine_similarity(update, -grad, dim=-1)
            sizes = [x.square().mean(-1).sqrt().mean() for x in (grad, update)]
            for key, value in zip(found, [t, *map(float, sizes), float(cosine.mean())], strict=True):
                found[key].append(_round(value))
        before = after
    return found


def _gradients(learner: BaseLearner, theta: Tensor, tasks: Task) -> Tensor:
    """Return ∇L on each task's support set at its own θ `[tasks, n]`, one task at a time: `[tasks, n]`."""
    found = []
    with torch.enable_grad():
        for own, task in zip(theta, (tasks[i] for i in range(len(tasks))), strict=True):
            leaf = own.detach().requires_grad_()
            found += torch.autograd.grad(learner.loss(leaf, task.support), leaf)
    return torch.stack(found)


def _mean_loss(learner: BaseLearner, theta: Tensor, tasks: Task) -> float:
    """Return the mean support loss at θ⁰ over the tasks."""
    supports: list[Batch] = [tasks[i].support for i in range(len(tasks))]
    return math.fsum(float(learner.loss(theta, support)) for support in supports) / len(supports)


def _round(value: float) -> float:
    """Round to four digits, which suffice for a figure."""
    return float(f"{value:.4g}")
