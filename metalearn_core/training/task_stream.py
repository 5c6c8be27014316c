"""The tasks of a split as one numbered sequence, the same for every method, seed and meta-batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import attrs
import torch

from metalearn_core.errors import UsageError, require_count, require_kinds, unknown
from metalearn_core.task import Task, TaskFamily

BLOCK = 100


def seeded_generator(*key: object) -> torch.Generator:
    """Make a CPU generator whose seed is a hash of `key`, so that unlike keys give unrelated streams.

    Args:
        key: values whose `str` says what the stream is for.

    Returns:
        A new generator; equal keys give equal streams on every machine.

    Example:
        >>> import torch
        >>> from metalearn_core import seeded_generator
        >>> first = torch.randn(2, generator=seeded_generator("weights", 0))
        >>> torch.equal(first, torch.randn(2, generator=seeded_generator("weights", 0)))
        True
        >>> torch.equal(first, torch.randn(2, generator=seeded_generator("weights", 1)))
        False
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def require_family(who: str, family: object) -> None:
    """UsageError for what has no splits, or cannot be sampled from."""
    if not hasattr(family, "splits") or not callable(getattr(family, "sample", None)):
        raise UsageError(f"{who}: family must have splits and sample, got a {type(family).__name__}")


@attrs.define(eq=False)
class TaskStream:
    """Tasks 0, 1, 2, ... of one split: block b of 100 comes from a generator seeded by (seed, split, b).

    So task i does not depend on the meta-batch it is used in nor on where a run was resumed, and no
    generator state has to be kept. The family is sampled on the CPU, and the tasks move to the device.

    A family whose tasks are large may have two more methods: `draw(split, count, generator)`, called in the
    place of `sample`, gives tasks whose inputs are small (say, numbers of images); `realise(split, task,
    dtype)` makes, on the device, those that are taken. What it makes is not checked for NaN.

    Args:
        family: the tasks.
        split: the name of one of its splits.
        seed: which sequence of tasks this is.
        device: where the tasks go.
        dtype: that of their floating-point tensors.

    Raises:
        UsageError: for a split that the family lacks, for tasks of the wrong number, and for a
            task that holds a NaN or an infinity.

    Example:
        >>> import torch
        >>> from metalearn_core import TaskStream
        >>> from metalearn_core.testing import TinySines
        >>> stream = TaskStream(TinySines(), "train", 0, torch.device("cpu"), torch.float32)
        >>> seven, of_a_batch = stream.take(7, 1), stream.take(5, 4)[2:3]
        >>> torch.equal(seven.support.inputs, of_a_batch.support.inputs)
        True
    """

    family: TaskFamily
    split: str
    seed: int
    device: torch.device
    dtype: torch.dtype
    _cached: tuple[int, Task] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        require_family("TaskStream", self.family)
        require_kinds("TaskStream", split=(self.split, str), device=(self.device, (torch.device, str)))
        require_kinds("TaskStream", dtype=(self.dtype, torch.dtype))
        require_count("TaskStream", "seed", self.seed)
        if self.split not in self.family.splits:
            raise unknown(f"split of {type(self.family).__name__}", self.split, self.family.splits)

    def _block(self, index: int) -> Task:
        if self._cached is None or self._cached[0] != index:
            name = f"{type(self.family).__name__}.sample({self.split!r})"
            draw = getattr(self.family, "draw", self.family.sample)
            task = draw(self.split, BLOCK, seeded_generator(self.seed, self.split, index))
            if not isinstance(task, Task) or not task.stacked or len(task) != BLOCK:
                given = f"{len(task)} task(s)" if isinstance(task, Task) else type(task).__name__
                raise UsageError(f"{name}: expected a meta-batch of {BLOCK} tasks, got {given}")
            broken = task.first_not_finite()
            if broken is not None:
                raise UsageError(
                    f"{name}: task {index * BLOCK + broken} holds a NaN or an infinity;"
                    " mend the data or the family"
                )
            self._cached = index, task.to(self.device, self.dtype)
        return self._cached[1]

    def take(self, start: int, count: int) -> Task:
        """Tasks start ... start + count - 1 as a meta-batch."""
        require_count("TaskStream", "start", start)
        require_count("TaskStream", "count", count, 1)
        parts = []
        while count > 0:
            block, offset = divmod(start, BLOCK)
            part = self._block(block)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        task = Task.concatenate(parts)
        realise: Callable[..., Task] = getattr(self.family, "realise", lambda _split, drawn, _dtype: drawn)
        return realise(self.split, task, self.dtype)

    def batches(self, total: int, size: int) -> Iterator[Task]:
        """The first `total` tasks in meta-batches of `size`, the last one smaller where need be."""
        for start in range(0, total, size):
            yield self.take(start, min(size, total - start))
