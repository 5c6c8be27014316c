"""A task: the support set a learner adapts on, and the query set it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import UsageError


@attrs.frozen(eq=False)
class Batch:
    """Examples: `inputs` and `targets`, both `[n, ...]` with the same n >= 1.

    `stacked`: the batches of a meta-batch, `[tasks, n, ...]`. `Task(..., stacked=True)` sets it, so
    that `task.support` alone tells `adapt` how to read it beside a shared start θ of shape `[n]`.

    Raises UsageError where the two do not fit together or hold no example.
    """

    inputs: Tensor
    targets: Tensor
    stacked: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        lead = 1 + self.stacked
        for name, tensor in (("inputs", self.inputs), ("targets", self.targets)):
            if not isinstance(tensor, Tensor):
                raise UsageError(f"Batch: {name} must be a tensor, got {type(tensor).__name__}")
            if tensor.ndim < lead:
                wanted = "[tasks, n, ...]" if self.stacked else "[n, ...]"
                raise UsageError(
                    f"Batch: {name} must have shape {wanted}, got {tuple(tensor.shape)}"
                )
        if self.inputs.shape[:lead] != self.targets.shape[:lead]:
            raise UsageError(
                f"Batch: inputs {tuple(self.inputs.shape)} and targets"
                f" {tuple(self.targets.shape)} must agree in their leading {lead} size(s)"
            )
        if 0 in self.inputs.shape[:lead]:
            raise UsageError(
                f"Batch: at least one example is needed, got inputs {tuple(self.inputs.shape)}"
            )

    def __len__(self) -> int:
        """n, the number of examples (of each task, where stacked)."""
        return self.inputs.shape[int(self.stacked)]

    def map(self, function: Callable[[Tensor], Tensor], *, stacked: bool | None = None) -> Batch:
        """The batch with `function` applied to both tensors."""
        return Batch(
            function(self.inputs),
            function(self.targets),
            stacked=self.stacked if stacked is None else stacked,
        )


@attrs.frozen(eq=False)
class Task:
    """A support and a query set; with `stacked=True` a meta-batch whose tensors lead with `[tasks]`.

    A single task is a sequence of one: `len(task)` is 1 and `task[0]` the task itself. Of a
    meta-batch, `task[i]` is one task and `task[i:j]` a smaller meta-batch.

    Raises UsageError, by name, where support and query do not fit together.
    """

    support: Batch
    query: Batch
    stacked: bool = False

    def __attrs_post_init__(self) -> None:
        for name in ("support", "query"):
            batch: Batch = getattr(self, name)
            if not isinstance(batch, Batch):
                raise UsageError(f"Task: {name} must be a Batch, got {type(batch).__name__}")
            if batch.stacked and not self.stacked:
                raise UsageError(f"Task: {name} is stacked; say Task(..., stacked=True)")
            if self.stacked and not batch.stacked:
                object.__setattr__(self, name, Batch(batch.inputs, batch.targets, stacked=True))
        self._require_fit()

    def _require_fit(self) -> None:
        lead = 1 + self.stacked
        for field in ("inputs", "targets"):
            support, query = getattr(self.support, field), getattr(self.query, field)
            for what, ours, theirs in (
                ("shape of one example", support.shape[lead:], query.shape[lead:]),
                ("dtype", support.dtype, query.dtype),
                ("device", support.device, query.device),
            ):
                if ours != theirs:
                    shown = [tuple(v) if isinstance(v, torch.Size) else v for v in (ours, theirs)]
                    raise UsageError(
                        f"Task: support and query {field} must agree in {what},"
                        f" got {shown[0]} and {shown[1]}"
                    )
        tasks = [batch.inputs.shape[0] for batch in (self.support, self.query)]
        if self.stacked and tasks[0] != tasks[1]:
            raise UsageError(
                f"Task: support holds {tasks[0]} tasks and query {tasks[1]}; they must be the same"
            )

    @staticmethod
    def stack(tasks: Sequence[Task]) -> Task:
        """One meta-batch of single tasks that agree in every shape."""
        if not tasks:
            raise UsageError("Task.stack: at least one task is needed, got none")
        if any(task.stacked for task in tasks):
            raise UsageError("Task.stack: takes single tasks, got a meta-batch")
        sides = {}
        for side in ("support", "query"):
            batches = [getattr(task, side) for task in tasks]
            columns = {}
            for field in ("inputs", "targets"):
                tensors = [getattr(batch, field) for batch in batches]
                shapes = sorted({tuple(tensor.shape) for tensor in tensors})
                if len(shapes) > 1:
                    raise UsageError(
                        f"Task.stack: {side} {field} must have one shape, got {shapes}"
                    )
                columns[field] = torch.stack(tensors)
            sides[side] = Batch(**columns, stacked=True)
        return Task(**sides, stacked=True)

    @staticmethod
    def concatenate(tasks: Sequence[Task]) -> Task:
        """One meta-batch out of several."""
        if len(tasks) == 1:
            return tasks[0]
        sides = {
            side: Batch(
                torch.cat([getattr(task, side).inputs for task in tasks]),
                torch.cat([getattr(task, side).targets for task in tasks]),
                stacked=True,
            )
            for side in ("support", "query")
        }
        return Task(**sides, stacked=True)

    def __len__(self) -> int:
        return self.support.inputs.shape[0] if self.stacked else 1

    def __getitem__(self, index: int | slice) -> Task:
        if isinstance(index, slice):
            if not self.stacked:
                raise UsageError("Task: only a meta-batch (stacked=True) can be sliced")
            return self.map(lambda tensor: tensor[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"task {index} of {len(self)}")
        if not self.stacked:
            return self
        return Task(
            self.support.map(lambda tensor: tensor[index], stacked=False),
            self.query.map(lambda tensor: tensor[index], stacked=False),
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> Task:
        """The task with `function` applied to its four tensors."""
        return Task(self.support.map(function), self.query.map(function), self.stacked)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Task:
        """The task on `device`; `dtype` is for floating-point tensors, class labels keep theirs."""
        return self.map(lambda x: x.to(device, dtype if x.is_floating_point() else None))

    def first_not_finite(self) -> int | None:
        """Index of the first task that holds a NaN or an infinity, or None."""
        tensors = (
            self.support.inputs,
            self.support.targets,
            self.query.inputs,
            self.query.targets,
        )
        for index_of in tensors:
            if torch.isfinite(index_of).all():
                continue
            finite = torch.isfinite(index_of).reshape(len(self), -1).all(1)
            return int((~finite).nonzero()[0])
        return None


@runtime_checkable
class TaskFamily(Protocol):
    """A distribution of tasks, by split."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits; `meta_train` reads `train` and `validation`, `meta_test` `test`."""
        ...

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw a meta-batch of `count` tasks; the same generator state gives the same tasks."""
        ...

    def examples(self, split: str) -> Batch:
        """The flat data behind the tasks; raises NotImplementedError where there is none."""
        ...
