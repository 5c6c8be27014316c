"""Meta-batches that do not fit in memory: their gradients piece after piece, averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from metalearn_core.task import Task


def over_pieces(
    gradients: Callable[[Task, int], Sequence[Tensor]], task: Task, size: int | None, first: int = 0
) -> Sequence[Tensor]:
    """What `gradients`, means over tasks, are for the whole meta-batch, taken `size` tasks at a time.

    `gradients` gets a piece and the place of its first task; that of the first task of all is `first`.
    """
    if size is None or len(task) <= size:
        return gradients(task, first)
    total: list[Tensor] = []
    for start in range(0, len(task), size):
        piece = task[start : start + size]
        found = [len(piece) / len(task) * x for x in gradients(piece, first + start)]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    return total
