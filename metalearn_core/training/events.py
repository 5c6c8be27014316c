"""What observers are told during meta-training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs


@attrs.frozen
class Event:
    """What an observer is told.

    Args:
        kind: start, engine, compiling, step, evaluating, validation, checkpoint, diverged or end.
            `evaluating` comes before each batch of validation tasks, `compiling` before each program.
        position: the number of tasks that training has used.
        values: what belongs to the kind, such as the `loss` of a step; and its `gradient_norm`, where an
            observer has an attribute of that name that is true.

    Example:
        >>> import torch
        >>> from metalearn_core import Settings, make_rule, meta_train
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner, settings = tiny_learner(), Settings(tasks=2, steps=1, validation_tasks=2)
        >>> rule = make_rule("gradient-descent", learner.layout)
        >>> events = []
        >>> _ = meta_train(
        ...     rule, learner, TinySines(), settings,
        ...     generator=torch.Generator().manual_seed(0), observers=[events.append],
        ... )
        >>> [event.position for event in events if event.kind == "step"]
        [1, 2]
    """

    kind: str
    position: int
    values: Mapping[str, float | str] = attrs.field(factory=dict)


Observer = Callable[[Event], None]
