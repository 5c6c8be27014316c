"""A task: the support set a learner adapts on, and the query set it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.errors import UsageError, require_callables, require_kinds


@attrs.frozen(eq=False)
class Batch:
    """Examples: inputs and their targets, each a tensor or any pytree of tensors.

    Args:
        inputs: `[n, ...]`, n >= 1; or a dict, tuple or list of such tensors, nested as they may be.
        targets: the same, with the same n, or None where the loss asks for none.
        stacked: whether these are the batches of a meta-batch, `[tasks, n, ...]`. `Task(..., stacked=True)`
            sets it, so that `task.support` alone tells `adapt` how to read it beside a shared θ⁰ `[n]`.
        mask: booleans `[n]`, True for examples that are there and False for padding; None: all are there.
            Losses and scores are means over what is there.

    Raises:
        UsageError: where they do not fit together or hold no example.

    Example:
        >>> import torch
        >>> from metalearn_core import Batch
        >>> batch = Batch(inputs=torch.zeros(5, 3), targets=torch.zeros(5, 1))
        >>> len(batch)
        5
        >>> words = {"ids": torch.zeros(5, 7, dtype=torch.int64), "attention": torch.ones(5, 7)}
        >>> len(Batch(inputs=words, targets=None))
        5
    """

    inputs: Any
    targets: Any
    stacked: bool = attrs.field(default=False, kw_only=True)
    mask: Tensor | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        require_kinds("Batch", stacked=(self.stacked, bool), mask=(self.mask, (Tensor, NoneType)))
        whole = (self.inputs, () if self.targets is None else self.targets)
        parts = list(whole) if self._is_plain else pytree.tree_leaves(whole)
        leads = {tuple(x.shape[: 1 + self.stacked]) if isinstance(x, Tensor) else () for x in parts}
        empty = len(leads) != 1 or not (self._is_plain or pytree.tree_leaves(self.inputs))
        if empty or 0 in (lead := leads.pop()) or len(lead) <= self.stacked:
            wanted = "[tasks, n, ...]" if self.stacked else "[n, ...]"
            raise UsageError(
                f"Batch: inputs and targets must be tensors {wanted} that agree in it, n >= 1;"
                f" got {_shapes(self.inputs)} and {_shapes(self.targets)}"
            )
        if self.mask is not None and (tuple(self.mask.shape), self.mask.dtype) != (lead, torch.bool):
            raise UsageError(
                f"Batch: mask must be booleans of shape {lead}, one for each example,"
                f" got {tuple(self.mask.shape)} of {self.mask.dtype}"
            )

    @property
    def _is_plain(self) -> bool:
        plain = isinstance(self.inputs, Tensor) and isinstance(self.targets, Tensor)
        return plain and self.mask is None

    @property
    def structure(self) -> str:
        """How it is made of its tensors, in words: batches that agree in it can be stacked."""
        return "" if self._is_plain else str(pytree.tree_map(type, (self.inputs, self.targets, self.mask)))

    @property
    def tensors(self) -> list[Tensor]:
        """All its tensors, in an order that `like` knows: inputs, targets, mask."""
        if self._is_plain:
            return [self.inputs, self.targets]
        leaves = pytree.tree_leaves((self.inputs, self.targets, self.mask))
        return [leaf for leaf in leaves if leaf is not None]

    @property
    def named_tensors(self) -> dict[str, Tensor]:
        """Its tensors by what messages call them."""
        if self._is_plain:
            return {"inputs": self.inputs, "targets": self.targets}
        found: dict[str, Tensor] = {}
        for name, part in (("inputs", self.inputs), ("targets", self.targets), ("mask", self.mask)):
            leaves, _ = pytree.tree_flatten_with_path(part)
            found |= {f"{name}{pytree.keystr(path)}": leaf for path, leaf in leaves if leaf is not None}
        return found

    def like(self, tensors: Sequence[Tensor], *, stacked: bool) -> Batch:
        """A batch of the same structure made of other tensors."""
        if self._is_plain:
            return Batch(*tensors, stacked=stacked)
        leaves, structure = pytree.tree_flatten((self.inputs, self.targets, self.mask))
        fresh = iter(tensors)
        leaves = [leaf if leaf is None else next(fresh) for leaf in leaves]
        inputs, targets, mask = pytree.tree_unflatten(leaves, structure)
        return Batch(inputs, targets, stacked=stacked, mask=mask)

    def padded(self, n: int) -> Batch:
        """The batch filled up to n examples, and a mask that says what is there.

        What fills it are copies of its first example: a module that divides by a number of words finds some.
        """
        axis, own = int(self.stacked), len(self)
        here = self.mask if self.mask is not None else _there(self.tensors[0], axis)

        def pad(x: Tensor) -> Tensor:
            first = x.narrow(axis, 0, 1).expand(*x.shape[:axis], n - own, *x.shape[axis + 1 :])
            return torch.cat([x, first], axis)

        inputs, targets = pytree.tree_map_only(Tensor, pad, (self.inputs, self.targets))
        missing = here.new_zeros(*here.shape[:axis], n - own)
        mask = torch.cat([here, missing], axis)
        return Batch(inputs, targets, stacked=self.stacked, mask=mask)

    def __len__(self) -> int:
        """n, the number of examples (of each task, where stacked), padding counted."""
        return self.tensors[0].shape[int(self.stacked)]


def _there(like: Tensor, axis: int) -> Tensor:
    return torch.ones(like.shape[: axis + 1], dtype=torch.bool, device=like.device)


def _shapes(part: Any) -> str:
    """The shape of a tensor, or the structure with a shape for each tensor; the kind of all else."""
    told = pytree.tree_map(lambda x: tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__, part)
    return str(told)


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
        >>> small = Task(Batch(torch.zeros(2, 1), torch.zeros(2, 1)), task.query)
        >>> Task.stack([task, small], pad=True).support.mask.sum(1).tolist()
        [5, 2]
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
                object.__setattr__(self, name, batch.like(batch.tensors, stacked=True))
        for name in ("inputs", "targets"):
            ours, theirs = (self._facts(getattr(batch, name)) for batch in (self.support, self.query))
            if ours != theirs:
                raise UsageError(
                    f"Task: support and query {name} must agree in tasks, shape of an example, dtype"
                    f" and device; got {ours} and {theirs}"
                )

    def _facts(self, part: Any) -> Any:
        """What inputs of support and query, or their targets, have in common."""

        def of(x: Tensor) -> tuple[Any, ...]:
            return (*x.shape[:1][: self.stacked], tuple(x.shape[1 + self.stacked :]), x.dtype, x.device)

        return of(part) if isinstance(part, Tensor) else pytree.tree_map_only(Tensor, of, part)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in the order of `like`: inputs and targets of the support set, then of the query."""
        return (*self.support.tensors, *self.query.tensors)

    @property
    def structure(self) -> str:
        """How it is made of its tensors, in words; empty for four tensors."""
        both = self.support.structure, self.query.structure
        return " and ".join(both) if any(both) else ""

    @staticmethod
    def of(tensors: Sequence[Tensor], *, stacked: bool) -> Task:
        """A task from four tensors: inputs and targets of the support set, then of the query set."""
        support_inputs, support_targets, query_inputs, query_targets = tensors
        support = Batch(support_inputs, support_targets, stacked=stacked)
        return Task(support, Batch(query_inputs, query_targets, stacked=stacked), stacked)

    def like(self, tensors: Sequence[Tensor], *, stacked: bool) -> Task:
        """A task of the same structure made of other tensors."""
        count = len(self.support.tensors)
        support = self.support.like(tensors[:count], stacked=stacked)
        return Task(support, self.query.like(tensors[count:], stacked=stacked), stacked)

    @staticmethod
    def stack(tasks: Sequence[Task], *, pad: bool | int = False) -> Task:
        """One meta-batch of single tasks; UsageError unless they agree in every shape and dtype.

        `pad`: they may have different numbers of examples. Smaller sets are filled up to the
        largest one, or support and query sets alike to that number of examples, with copies, and a mask says
        what is there.
        """
        return Task._join(tasks, torch.stack, stacked=False, pad=pad)

    @staticmethod
    def concatenate(tasks: Sequence[Task]) -> Task:
        """One meta-batch out of several; UsageError unless they agree in all but the number of tasks."""
        masked = bool(tasks) and all(isinstance(x, Task) and x.support.mask is not None for x in tasks)
        return Task._join(tasks, torch.cat, stacked=True, pad=masked)

    @staticmethod
    def _join(
        tasks: Sequence[Task], join: Callable[[list[Tensor]], Tensor], *, stacked: bool, pad: bool | int
    ) -> Task:
        who = f"Task.{'concatenate' if stacked else 'stack'}"
        require_kinds(who, tasks=(tasks, (list, tuple)), pad=(pad, (bool, int)))
        for task in tasks:
            require_kinds(who, task=(task, Task))
        tasks = _padded(tasks, pad) if pad else tasks
        facts = sorted({_description(task, stacked) for task in tasks})
        if len(facts) != 1 or any(task.stacked != stacked for task in tasks):
            raise UsageError(
                f"{who}: expected {'stacked' if stacked else 'single'}"
                " tasks of the same shapes and dtypes (support inputs and targets, query inputs and targets);"
                f" got {len(tasks)} of {' and of '.join(facts) or 'no shape'}"
            )
        columns = zip(*(task.tensors for task in tasks), strict=True)
        return tasks[0].like([join(list(column)) for column in columns], stacked=True)

    def __len__(self) -> int:
        return self.support.tensors[0].shape[0] if self.stacked else 1

    def __getitem__(self, index: int | slice) -> Task:
        require_kinds("Task", index=(index, (int, slice)))
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"task {index} of {len(self)}")
        if not self.stacked:
            return self if isinstance(index, int) else Task.stack([self])[index]
        return self.like([x[index] for x in self.tensors], stacked=isinstance(index, slice))

    def map(self, function: Callable[[Tensor], Tensor]) -> Task:
        """The task with `function` applied to all its tensors."""
        require_callables("Task.map", function=function)
        return self.like([function(x) for x in self.tensors], stacked=self.stacked)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Task:
        """The task on `device`; `dtype` is for floating-point tensors, class labels keep theirs."""
        require_kinds("Task.to", device=(device, (torch.device, str)), dtype=(dtype, (torch.dtype, NoneType)))
        return self.map(lambda x: x.to(device, dtype if x.is_floating_point() else None))

    def first_not_finite(self) -> int | None:
        """Index of the first task that holds a NaN or an infinity, or None."""
        finite = [torch.isfinite(x).reshape(len(self), -1).all(1) for x in self.tensors]
        broken = (~torch.stack(finite).all(0)).nonzero()
        return int(broken[0]) if len(broken) else None


def _description(task: Task, stacked: bool) -> str:
    shapes = str([(*x.shape[stacked:], x.dtype) for x in task.tensors])
    return f"{shapes} in {task.structure}" if task.structure else shapes


def _padded(tasks: Sequence[Task], pad: bool | int) -> list[Task]:
    """The tasks with as many examples each as the largest has, or as `pad` says where it is a number."""
    sizes = [max(len(getattr(task, part)) for task in tasks) for part in ("support", "query")]
    if pad is not True:
        if pad < max(sizes):
            raise UsageError(
                f"Task.stack: pad must be True or at least {max(sizes)}, got {pad}: support and query sets"
                " are padded alike"
            )
        sizes = [pad, pad]
    return [Task(task.support.padded(sizes[0]), task.query.padded(sizes[1]), task.stacked) for task in tasks]


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
