"""What a trained rule does, as numbers for a record: its answer to gradients, and its steps on tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from metalearn_core import BaseLearner, Batch, Clipping, Signal, Task, UpdateRule, trajectory

LOWEST, HIGHEST, PER_DECADE = -4, 1, 4
"""Gradients from 10^LOWEST to 10^HIGHEST, of both signs, and 0."""
QUANTILES = (0.1, 0.5, 0.9)
MOST_STEPS = 8
"""Steps that are shown of a path, at most."""


def gradients() -> list[float]:
    """The symmetric grid, ascending: the same numbers of every record."""
    count = (HIGHEST - LOWEST) * PER_DECADE
    positive = [_short(10 ** (LOWEST + k / PER_DECADE)) for k in range(count + 1)]
    return [-g for g in reversed(positive)] + [0.0] + positive


@torch.no_grad()
def rule_response(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, tasks: Task, steps: int, clip: Clipping | None
) -> dict[str, Any] | None:
    """What `rule` does from θ⁰, for a record; None where T = 0 and nothing is done.

    Args:
        theta: θ⁰, `[n]`.
        tasks: stacked; the path is over them.
        steps: T.
        clip: on support gradients, for the path.

    Returns:
        `response`: the update θ⁽ᵗ⁺¹⁾ − θ⁽ᵗ⁾ against the gradient g of a coordinate, None for a rule that
        is not elementwise; `path`: what the updates on the tasks are like, for any rule.
    """
    if steps == 0:
        return None
    return {
        "response": _response(rule, theta, _mean_loss(learner, theta, tasks), steps),
        "path": _path(rule, learner, theta, tasks, steps, clip),
    }


def shown_steps(steps: int) -> list[int]:
    """0 and T − 1, and between them steps that lie ever farther apart."""
    spread = [round(steps ** (k / (MOST_STEPS - 1))) - 1 for k in range(MOST_STEPS)]
    return sorted({0, steps - 1, *spread}) if steps > MOST_STEPS else list(range(steps))


def _response(rule: UpdateRule, theta: Tensor, loss: float, steps: int) -> dict[str, Any] | None:
    """Every coordinate at θ = 0 sees the same gradient g at all steps, and the state that follows from it.

    Where all coordinates share one function, the grid is laid out over them: one number for each g.
    Where they do not (an α of each coordinate), quantiles over the coordinates of each g.
    """
    if not rule.elementwise:
        return None
    grid, n = theta.new_tensor(gradients()), theta.numel()
    if rule.coordinatewise:
        # as many rows as the rule's own n makes necessary: it may know no other
        rows = grid.new_zeros(-(-len(grid) // n) * n)
        rows[: len(grid)] = grid
        kept = {t: [u.flatten()[: len(grid)].tolist()] for t, u in _held(rule, rows.view(-1, n), loss, steps)}
    else:
        kept = {t: [[] for _ in QUANTILES] for t in shown_steps(steps)}
        at = theta.new_tensor(QUANTILES)
        for g in grid:
            for t, update in _held(rule, g.expand(1, n), loss, steps):
                for values, value in zip(kept[t], torch.quantile(update[0], at).tolist(), strict=True):
                    values.append(value)
    return {
        "gradients": gradients(),
        "loss": _short(loss),
        "quantiles": [0.5] if rule.coordinatewise else list(QUANTILES),
        "steps": list(kept),
        "updates": [[[_short(u) for u in values] for values in of_step] for of_step in kept.values()],
    }


def _held(rule: UpdateRule, grad: Tensor, loss: float, steps: int) -> Iterator[tuple[int, Tensor]]:
    """(t, update) of the shown steps, for gradients `[rows, n]` that stay as they are, at θ = 0."""
    theta, losses = torch.zeros_like(grad), grad.new_full((len(grad),), loss)
    state, shown = rule.init_state(theta), shown_steps(steps)
    for t in range(steps):
        moved, state = rule.update(theta, Signal(grad, losses, t), state)
        if t in shown:
            yield t, moved - theta


def _path(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, tasks: Task, steps: int, clip: Clipping | None
) -> dict[str, list[float]]:
    """Of each shown step, means over tasks: sizes of gradient and update, and their alignment.

    Sizes are root mean squares over coordinates; `alignment` is the cosine of the update and −∇L, 1 for
    gradient descent.
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
                found[key].append(_short(value))
        before = after
    return found


def _gradients(learner: BaseLearner, theta: Tensor, tasks: Task) -> Tensor:
    """∇L of each task's support set at its own θ `[tasks, n]`, one task at a time: `[tasks, n]`."""
    found = []
    with torch.enable_grad():
        for own, task in zip(theta, (tasks[i] for i in range(len(tasks))), strict=True):
            leaf = own.detach().requires_grad_()
            found += torch.autograd.grad(learner.loss(leaf, task.support), leaf)
    return torch.stack(found)


def _mean_loss(learner: BaseLearner, theta: Tensor, tasks: Task) -> float:
    """The support loss at θ⁰, over the tasks."""
    supports: list[Batch] = [tasks[i].support for i in range(len(tasks))]
    return math.fsum(float(learner.loss(theta, support)) for support in supports) / len(supports)


def _short(value: float) -> float:
    """Four digits: enough for a picture."""
    return float(f"{value:.4g}")
