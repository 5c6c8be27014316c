"""Reptile: θ⁰ moves towards where the inner loop ends, and nothing is differentiated through it.

Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms" (2018), Algorithm 2: the mean of
θ⁰ − θ⁽ᵀ⁾ over the tasks of a meta-batch is taken for a gradient, and given to Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from metalearn_core import (
    BaseLearner,
    Batch,
    Clipping,
    Order,
    Task,
    UpdateRule,
    UsageError,
    adapt,
    hookimpl,
    query_losses,
)


def reptile(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, task: Task,
    *, steps: int, order: Order = "second", clip: Clipping | None = None,
    truncate: int | None = None, outer_decay: float | None = None,
    examples: Literal["support", "all"] = "support",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """θ⁰ − θ⁽ᵀ⁾, mean over tasks, in place of a gradient   (Nichol et al., 2018, Algorithm 2).

    It is no gradient of the query loss, which is returned to be watched. The rule must have no φ to learn.

    Args:
        examples: what the inner loop sees in training: the support set, as at test, or all examples of a
            task, as in the paper.
    """
    if (order, truncate, outer_decay) != ("second", None, None):
        raise UsageError("reptile: it differentiates no path: leave out order, truncate and outer_decay")
    if examples not in ("support", "all"):
        raise UsageError(f'reptile: examples must be "support" or "all", got {examples!r:.60}')
    if learned := [name for name, phi in rule.named_parameters() if phi.requires_grad]:
        raise UsageError(
            f"reptile: it moves θ⁰ alone, and rule {rule.label} has {_listed(learned)} to learn: take"
            " backpropagation, hessian-free or evolution, or an option of the rule that learns nothing"
        )
    task = task if task.stacked else Task.stack([task])
    seen = task.support if examples == "support" else _joined(task)
    with torch.no_grad():
        adapted = adapt(rule, learner, theta, seen, steps=steps, clip=clip)
        moved = (theta - adapted) / len(task)
        loss = query_losses(learner, adapted, task).mean()
    grad = moved if theta.ndim == 2 else moved.sum(0)
    return loss, grad, {name: torch.zeros_like(phi) for name, phi in rule.named_parameters()}


def _joined(task: Task) -> Batch:
    """Support and query examples of each task in one batch."""
    if task.support.structure != task.query.structure:
        raise UsageError('reptile: support and query sets are made differently: take examples = "support"')
    pairs = zip(task.support.tensors, task.query.tensors, strict=True)
    return task.support.like([torch.cat(pair, 1) for pair in pairs], stacked=True)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


@hookimpl
def metalearn_meta_gradients() -> Mapping[str, Callable[..., Any]]:
    """The outer gradient, by its name."""
    return {"reptile": reptile}
