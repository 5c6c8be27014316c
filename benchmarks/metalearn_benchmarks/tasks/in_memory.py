"""Families of tasks from what a program has in memory: examples with classes, and a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from metalearn_benchmarks.tasks.episode_numbers import draw_numbers
from metalearn_core import Batch, Task, UsageError, seeded_generator, unknown

EXAMPLE_TASKS = 1_000
"""Tasks whose points are the flat data of a function."""


def _count(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{attribute.name} must be an integer >= 1, got {value!r}")


def _as_tensor(given: Any) -> Tensor:
    """Return the examples as a tensor of floats, or of bytes, which stay small until they are used."""
    try:
        found: Tensor = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"ClassFamily: inputs must be an array or a tensor of numbers, got a {type(given).__name__}"
        ) from error
    if found.ndim == 0 or found.dtype not in (torch.uint8, torch.float16, torch.float32, torch.float64):
        raise UsageError(
            "ClassFamily: inputs must be floats, or bytes that are divided by 255, with an example in each"
            f" row; got {found.dtype} {list(found.shape)}"
        )
    return found


def _as_list(given: Any) -> Any:
    return np.asarray(given).tolist()


@attrs.frozen(eq=False)
class ClassFamily:
    """Few-shot classification of examples in memory: N ways, k shots, q queries of each class.

    All classes and examples of a task are drawn without replacement. Targets are 0 ... N-1, in the order in
    which classes were drawn.

    Args:
        inputs: The examples as the network takes them, `[n, ...]`: an array or a tensor of floats. Bytes
            (uint8) are divided by 255 when they are used.
        labels: The class of each example, `[n]`: integers or words.
        splits: The classes of each split, such as `{"train": [...], "validation": [...], "test": [...]}`. A
            class that is in no split is not used.
        ways: Classes of a task, N.
        shots: Support examples of each class, k.
        queries: Query examples of each class, q.

    Raises:
        UsageError: Labels and inputs are not as many, a class is in two splits or has no example, or a split
            has too few classes or examples.

    Example:
        >>> import numpy as np, torch
        >>> from metalearn_benchmarks import ClassFamily
        >>> images, labels = np.zeros((30, 1, 8, 8), np.float32), np.repeat(["oak", "elm", "ash"], 10)
        >>> family = ClassFamily(images, labels, {"train": ["oak", "elm"]}, ways=2, queries=5)
        >>> family.sample("train", 4, torch.Generator().manual_seed(0)).support.inputs.shape
        torch.Size([4, 2, 1, 8, 8])
    """

    inputs: Tensor = attrs.field(converter=_as_tensor)
    labels: list[Any] = attrs.field(converter=_as_list)
    classes: Mapping[str, Sequence[Any]] = attrs.field(alias="splits")
    ways: int = attrs.field(default=5, validator=_count)
    shots: int = attrs.field(default=1, validator=_count)
    queries: int = attrs.field(default=15, validator=_count)
    _rows: dict[str, tuple[Tensor, Tensor]] = attrs.field(init=False, repr=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.labels, list) or len(self.labels) != len(self.inputs):
            many = f"{len(self.labels)} labels" if isinstance(self.labels, list) else "one label"
            raise UsageError(f"ClassFamily: {len(self.inputs)} inputs and {many}; give one for each")
        rows: dict[Any, list[int]] = {}
        for row, label in enumerate(self.labels):
            rows.setdefault(label, []).append(row)
        of: dict[Any, str] = {}
        for split, classes in self.classes.items():
            for name in np.asarray(classes).tolist():
                if of.setdefault(name, split) != split:
                    raise UsageError(f"ClassFamily: class {name!r} is in {of[name]} and in {split}")
                if name not in rows:
                    raise UsageError(f"ClassFamily: class {name!r} of {split} has no example")
            groups = [rows[name] for name in np.asarray(classes).tolist()]
            self._require_enough(split, [len(group) for group in groups])
            counts = torch.tensor([len(group) for group in groups])
            self._rows[split] = torch.tensor([row for group in groups for row in group]), counts

    def _require_enough(self, split: str, counts: list[int]) -> None:
        each = self.shots + self.queries
        if len(counts) < self.ways or min(counts) < each:
            raise UsageError(
                f"ClassFamily, {split}: {self.ways} ways of {self.shots} shots and {self.queries} queries"
                f" need {self.ways} classes of {each} examples; it has {len(counts)} classes, the smallest of"
                f" {min(counts, default=0)}"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.classes)

    @property
    def training_classes(self) -> int:
        """The number of classes of the split `train`."""
        return len(self.classes.get("train", ()))

    def _of(self, split: str) -> tuple[Tensor, Tensor]:
        if split not in self._rows:
            raise unknown("split of ClassFamily", split, self._rows)
        return self._rows[split]

    def draw(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw tasks whose inputs are the rows of examples, `[count, n]`; `realise` looks them up."""
        rows, counts = self._of(split)
        firsts = counts.cumsum(0) - counts
        drawn = rows[draw_numbers(counts, firsts, self.ways, self.shots + self.queries, count, generator)]
        support, query = (
            Batch(
                part.reshape(count, -1),
                torch.arange(self.ways).repeat_interleave(part.shape[-1]).repeat(count, 1),
                stacked=True,
            )
            for part in (drawn[..., : self.shots], drawn[..., self.shots :])
        )
        return Task(support, query, stacked=True)

    def realise(self, split: str, task: Task, dtype: torch.dtype) -> Task:
        """Replace the rows of drawn tasks by the examples themselves."""
        support, query = (
            Batch(self._look_up(part.inputs, dtype), part.targets, stacked=True)
            for part in (task.support, task.query)
        )
        return Task(support, query, stacked=True)

    def _look_up(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        found = self.inputs[rows.to(self.inputs.device)].to(rows.device, dtype)
        return found.div_(255) if self.inputs.dtype == torch.uint8 else found

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw tasks with all their examples."""
        return self.realise(split, self.draw(split, count, generator), torch.get_default_dtype())

    def examples(self, split: str) -> Batch:
        """Return all examples of a split, and their classes 0 ... C-1."""
        rows, counts = self._of(split)
        return Batch(
            self._look_up(rows, torch.get_default_dtype()),
            torch.arange(len(counts)).repeat_interleave(counts),
        )


@attrs.frozen(eq=False)
class RegressionFamily:
    """Few-shot regression on random functions: each task is one of them.

    Args:
        function: Draws a function and returns its values: `function(inputs, generator)` for inputs
            `[n, dimensions]` gives targets `[n, ...]`. All its randomness comes from `generator`.
        support: Support points of a task.
        query: Query points of a task.
        low, high: Inputs are drawn uniformly between these.
        dimensions: Numbers of an input.

    Raises:
        UsageError: A number makes no sense; or, when tasks are drawn, the function gives no values.

    Example:
        >>> import torch
        >>> from metalearn_benchmarks import RegressionFamily
        >>> def lines(x, generator):
        ...     return torch.randn(1, generator=generator) * x
        >>> task = RegressionFamily(lines, query=10).sample("train", 3, torch.Generator().manual_seed(0))
        >>> task.support.targets.shape
        torch.Size([3, 5, 1])
    """

    function: Callable[[Tensor, torch.Generator], Tensor]
    support: int = attrs.field(default=5, validator=_count)
    query: int = attrs.field(default=50, validator=_count)
    low: float = -5.0
    high: float = 5.0
    dimensions: int = attrs.field(default=1, validator=_count)

    def __attrs_post_init__(self) -> None:
        if not callable(self.function):
            raise UsageError(f"RegressionFamily: function must be callable, got {self.function!r:.60}")
        if not self.low < self.high:
            raise UsageError(f"RegressionFamily: low must be below high, got {self.low} and {self.high}")

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits. All have the same distribution of tasks."""
        return ("train", "validation", "test")

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw tasks of a split."""
        if split not in self.splits:
            raise unknown("split of RegressionFamily", split, self.splits)
        points = self.support + self.query
        inputs = torch.rand(count, points, self.dimensions, generator=generator)
        inputs = self.low + (self.high - self.low) * inputs
        targets = torch.stack([self._values(each, generator) for each in inputs])
        k = self.support
        return Task(Batch(inputs[:, :k], targets[:, :k]), Batch(inputs[:, k:], targets[:, k:]), stacked=True)

    def _values(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        found = self.function(inputs, generator)
        if not isinstance(found, Tensor) or found.shape[:1] != inputs.shape[:1]:
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(
                f"RegressionFamily: function must give a tensor with a row for each of {len(inputs)} inputs,"
                f" got {got}"
            )
        return found

    def examples(self, split: str) -> Batch:
        """Return the points of some tasks as flat data."""
        task = self.sample(split, EXAMPLE_TASKS, seeded_generator("examples", split))
        inputs = torch.cat([task.support.inputs, task.query.inputs], 1).flatten(0, 1)
        return Batch(inputs, torch.cat([task.support.targets, task.query.targets], 1).flatten(0, 1))
