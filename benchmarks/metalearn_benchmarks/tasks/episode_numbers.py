"""Draw which examples make up few-shot tasks: some of some classes, without replacement."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_numbers(
    counts: Tensor, firsts: Tensor, ways: int, each: int, count: int, generator: torch.Generator
) -> Tensor:
    """Draw the examples of tasks.

    Args:
        counts: The number of examples of each class, `[classes]`; none is below `each`.
        firsts: The number of the first example of each class; those of a class follow one another.
        ways: Classes of a task.
        each: Examples of each class.
        count: How many tasks.
        generator: The source of randomness.

    Returns:
        Numbers of examples, int64 `[count, ways, each]`.
    """
    chosen = torch.rand(count, len(counts), generator=generator, dtype=torch.float64).argsort(1)[:, :ways]
    of_chosen = counts[chosen][..., None]
    # the `each` smallest of one random number for every example: a subset without replacement, in random
    # order
    keys = torch.rand(count, ways, int(of_chosen.max()), generator=generator, dtype=torch.float64)
    keys = keys.masked_fill(torch.arange(keys.shape[-1]) >= of_chosen, 2.0)
    within = keys.topk(each, largest=False).indices
    return firsts[chosen][..., None] + within
