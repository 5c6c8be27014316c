"""A copy of the whole training state at one moment."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.rule import UpdateRule


def _clone(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


@attrs.frozen(eq=False)
class Snapshot:
    """A whole state at one position: θ⁰, φ and the optimiser, with its validation score.

    Args:
        position: the number of tasks used.
        score: the mean validation score; NaN where there was no validation.
        theta: θ⁰, `[n]`.
        phi: the `state_dict` of the rule.
        optimizer: the `state_dict` of Adam.

    Example:
        >>> import torch
        >>> from metalearn_core import Settings, make_rule, meta_train
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner, settings = tiny_learner(), Settings(tasks=2, steps=1, validation_tasks=2)
        >>> rule = make_rule("gradient-descent", learner.layout)
        >>> generator = torch.Generator().manual_seed(0)
        >>> best = meta_train(rule, learner, TinySines(), settings, generator=generator).best
        >>> best.position <= 2, best.theta.shape == (learner.layout.size,)
        (True, True)
    """

    position: int
    score: float
    theta: Tensor
    phi: dict[str, Tensor]
    optimizer: dict[str, Any]

    @classmethod
    def of(
        cls, position: int, score: float, theta: Tensor, rule: UpdateRule, adam: torch.optim.Adam
    ) -> Snapshot:
        """A copy of the state as it is."""
        # cloned, not deep-copied: that would copy all that a tensor is a view of
        phi, optimizer = pytree.tree_map(_clone, (dict(rule.state_dict()), adam.state_dict()))
        return cls(position, score, theta.detach().clone(), phi, optimizer)
