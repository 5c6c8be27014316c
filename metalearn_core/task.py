"""A task: the support set a learner adapts on, and the query set it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import UsageError, require_callables, require_kinds


@attrs.frozen(eq=False)
class Batch:
    """Examples: inputs and their targets.

    Args:
        inputs: `[n, ...]`, n >= 1.
        targets: `[n, ...]`, with the same n.
        stacked: whether these are the batches of a meta-batch, `[tasks, n, ...]`. `Task(..., stacked=True)`
            sets it, so that `task.support` alone tells `adapt` how to read it beside a shared θ⁰ `[n]`.

    Raises:
        UsageError: where the two do not fit together or hold no example.

    Example:
        >>> import torch
        >>> from metalearn_core import Batch
        >>> batch = Batch(inputs=torch.zeros(5, 3), targets=torch.zeros(5, 1))
        >>> len(batch)
        5
    """

    inputs: Tensor
    targets: Tensor
    stacked: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        require_kinds("Batch", stacked=(self.stacked, bool))
        shapes = [tuple(x.shape) for x in (self.inputs, self.targets) if isinstance(x, Tensor)]
        leads = {shape[: 1 + self.stacked] for shape in shapes}
        if len(shapes) < 2 or len(leads) > 1 or 0 in (lead := leads.pop()) or len(lead) <= self.stacked:
            wanted = "[tasks, n, ...]" if self.stacked else "[n, ...]"
            given = [
                str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__
                for x in (self.inputs, self.targets)
            ]
            raise UsageError(
                f"Batch: inputs and targets must be tensors {wanted} that agree in it, n >= 1;"
                f" got {given[0]} and {given[1]}"
            )

    @property
    def tensors(self) -> list[Tensor]:
        """All its tensors, in an order that `like` knows."""
        return [self.inputs, self.targets]

    def like(self, tensors: Sequence[Tensor], *, stacked: bool) -> Batch:
        """A batch of the same structure made of other tensors."""
        return Batch(*tensors, stacked=stacked)

    def __len__(self) -> int:
        """n, the number of examples (of each task, where stacked)."""
        return self.inputs.shape[int(self.stacked)]


@attrs.frozen(eq=False)
class Task:
    """A support set and a query set; with `stacked=True` a meta-batch whose tensors lead with `[tasks]`.

    A single task is a sequence of one: `len(task)` is 1 and `task[0]` is the task itself. Of a
    meta-batch, `task[i]` is one task and `task[i:j]` a smaller meta-batch.

    Args:
        support: the examples that a learner adapts on.
        query: the examples that it is judged by.
        stacked: whether this is a meta-batch.

    Raises:
        UsageError: where support and query do not fit together; it names the part.

    Example:
        >>> import torch
        >>> from metalearn_core import Batch, Task
        >>> task = Task(
        ...     support=Batch(torch.zeros(5, 1), torch.zeros(5, 1)),
        ...     query=Batch(torch.zeros(10, 1), torch.zeros(10, 1)),
        ... )
        >>> meta_batch = Task.stack([task, task, task])
        >>> len(meta_batch), meta_batch.query.inputs.shape, len(meta_batch[:2])
        (3, torch.Size([3, 10, 1]), 2)
    """

    support: Batch
    query: Batch
    stacked: bool = False

    def __attrs_post_init__(self) -> None:
        require_kinds("Task", stacked=(self.stacked, bool))
        for name in ("support", "query"):
            batch: Batch = getattr(self, name)
            if not isinstance(batch, Batch) or batch.stacked > self.stacked:
                given = "a stacked one" if isinstance(batch, Batch) else type(batch).__name__
                raise UsageError(f"Task: {name} must be a Batch, stacked only with stacked=True; got {given}")
            if batch.stacked < self.stacked:
                object.__setattr__(self, name, Batch(batch.inputs, batch.targets, stacked=True))
        for name in ("inputs", "targets"):
            ours, theirs = [
                (
                    *x.shape[:1][: self.stacked],
                    tuple(x.shape[1 + self.stacked :]),
                    x.dtype,
                    x.device,
                )
                for x in (getattr(self.support, name), getattr(self.query, name))
            ]
            if ours != theirs:
                raise UsageError(
                    f"Task: support and query {name} must agree in tasks, shape of an example, dtype"
                    f" and device; got {ours} and {theirs}"
                )

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs and targets of the support set, then of the query set."""
        return self.support.inputs, self.support.targets, self.query.inputs, self.query.targets

    @staticmethod
    def of(tensors: Sequence[Tensor], *, stacked: bool) -> Task:
        """A task from four tensors in the order of `tensors`."""
        support_inputs, support_targets, query_inputs, query_targets = tensors
        support = Batch(support_inputs, support_targets, stacked=stacked)
        return Task(support, Batch(query_inputs, query_targets, stacked=stacked), stacked)

    @staticmethod
    def stack(tasks: Sequence[Task]) -> Task:
        """One meta-batch of single tasks; UsageError unless they agree in every shape and dtype."""
        return Task._join(tasks, torch.stack, stacked=False)

    @staticmethod
    def concatenate(tasks: Sequence[Task]) -> Task:
        """One meta-batch out of several; UsageError unless they agree in all but the number of tasks."""
        return Task._join(tasks, torch.cat, stacked=True)

    @staticmethod
    def _join(tasks: Sequence[Task], join: Callable[[list[Tensor]], Tensor], *, stacked: bool) -> Task:
        who = f"Task.{'concatenate' if stacked else 'stack'}"
        require_kinds(who, tasks=(tasks, (list, tuple)))
        for task in tasks:
            require_kinds(who, task=(task, Task))
        facts = sorted({str([(*x.shape[stacked:], x.dtype) for x in task.tensors]) for task in tasks})
        if len(facts) != 1 or any(task.stacked != stacked for task in tasks):
            raise UsageError(
                f"{who}: expected {'stacked' if stacked else 'single'}"
                " tasks of the same shapes and dtypes (support inputs and targets, query inputs and targets);"
                f" got {len(tasks)} of {' and of '.join(facts) or 'no shape'}"
            )
        columns = zip(*(task.tensors for task in tasks), strict=True)
        return Task.of([join(list(column)) for column in columns], stacked=True)

    def __len__(self) -> int:
        return self.support.inputs.shape[0] if self.stacked else 1

    def __getitem__(self, index: int | slice) -> Task:
        require_kinds("Task", index=(index, (int, slice)))
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"task {index} of {len(self)}")
        if not self.stacked:
            return self if isinstance(index, int) else Task.stack([self])[index]
        return Task.of([x[index] for x in self.tensors], stacked=isinstance(index, slice))

    def map(self, function: Callable[[Tensor], Tensor]) -> Task:
        """The task with `function` applied to its four tensors."""
        require_callables("Task.map", function=function)
        return Task.of([function(x) for x in self.tensors], stacked=self.stacked)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Task:
        """The task on `device`; `dtype` is for floating-point tensors, class labels keep theirs."""
        require_kinds("Task.to", device=(device, (torch.device, str)), dtype=(dtype, (torch.dtype, NoneType)))
        return self.map(lambda x: x.to(device, dtype if x.is_floating_point() else None))

    def first_not_finite(self) -> int | None:
        """Index of the first task that holds a NaN or an infinity, or None."""
        finite = [torch.isfinite(x).reshape(len(self), -1).all(1) for x in self.tensors]
        broken = (~torch.stack(finite).all(0)).nonzero()
        return int(broken[0]) if len(broken) else None


@runtime_checkable
class TaskFamily(Protocol):
    """A distribution of tasks, by split.

    Any object with these members is one; nothing has to be inherited.

    Example:
        >>> import torch
        >>> from metalearn_core import Batch, Task, TaskFamily
        >>> class Lines:
        ...     splits = ("train", "validation", "test")
        ...
        ...     def sample(self, split, count, generator):
        ...         slope = torch.randn(count, 1, 1, generator=generator)
        ...         x = torch.randn(count, 15, 1, generator=generator)
        ...         y = slope * x
        ...         return Task(Batch(x[:, :5], y[:, :5]), Batch(x[:, 5:], y[:, 5:]), stacked=True)
        ...
        ...     def examples(self, split):
        ...         raise NotImplementedError
        >>> isinstance(Lines(), TaskFamily), len(Lines().sample("train", 4, torch.Generator()))
        (True, 4)
    """

    @property
    def splits(self) -> tuple[str, ...]:
        """Its splits' names; `meta_train` reads `train` and `validation`, `meta_test` `test`."""
        ...

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw a meta-batch of `count` tasks; the same generator state gives the same tasks."""
        ...

    def examples(self, split: str) -> Batch:
        """The flat data behind the tasks; raises NotImplementedError where there is none."""
        ...
