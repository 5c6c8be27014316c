"""How a method is trained and tested: the order, the clipping, and all other settings of the loops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import UsageError, require_kinds, unknown

Order: TypeAlias = Literal["first", "second"]
ORDERS: tuple[Order, ...] = ("first", "second")
LONG_RUN = 10_000
"""Outer steps from which a run is worth compiling: what that takes, half a minute, is then saved."""


@attrs.frozen
class Clipping:
    """A bound on gradients, which is a part of a method.

    Args:
        by: `"value"` bounds each element, `"norm"` the Euclidean norm of each vector.
        limit: the bound, > 0, in the unit of the gradient.

    Raises:
        UsageError: for a value that does not fit.

    Example:
        >>> import torch
        >>> from metalearn_core import Clipping
        >>> Clipping("value", 1.0)(torch.tensor([3.0, -0.5]))
        tensor([ 1.0000, -0.5000])
        >>> round(Clipping("norm", 1.0)(torch.tensor([3.0, 4.0])).norm().item(), 3)
        1.0
    """

    by: Literal["value", "norm"]
    limit: float

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.by, str) or self.by not in ("value", "norm"):
            raise UsageError(f"Clipping: by must be one of value, norm, got {self.by!r}")
        if type(self.limit) not in (int, float) or not self.limit > 0:
            raise UsageError(f"Clipping: limit must be a number > 0, got {self.limit!r}")

    def __call__(self, grad: Tensor) -> Tensor:
        """The gradient, `[..., n]`, clipped; each vector by its own norm."""
        require_kinds("Clipping", grad=(grad, Tensor))
        if self.by == "value":
            return grad.clamp(-self.limit, self.limit)
        norm: Tensor = torch.linalg.vector_norm(grad, dim=-1, keepdim=True)
        return grad * (self.limit / (norm + 1e-6)).clamp(max=1.0)


SCHEDULES = ("constant", "cosine", "steps")


def _tuple_of_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@attrs.frozen(kw_only=True)
class OuterSchedule:
    """An outer learning rate that changes while training goes on, by the part of the tasks that are used.

    Args:
        start: the rate at the start, or at the end of a warm-up.
        schedule: `"constant"`; `"cosine"`, half a wave from `start` to `end` at the last task, as MAML++
            (Antoniou et al., 2019) has it; or `"steps"`, times `factor` at each place of `at`.
        end: where a cosine ends.
        at: for steps, the parts of the tasks, in (0, 1), after which the rate falls.
        factor: for steps, what the rate is multiplied by.
        warm_up: for this part of the tasks, in [0, 1), the rate rises in a line from 0 to `start`.

    Raises:
        UsageError: for a value that does not fit; it names the field.

    Example:
        >>> from metalearn_core import OuterSchedule, Settings
        >>> cosine = OuterSchedule(start=0.001, schedule="cosine", warm_up=0.2)
        >>> [round(cosine.at_position(position, of=100), 5) for position in (9, 20, 60, 99)]
        [0.0005, 0.001, 0.00049, 0.0]
        >>> settings = Settings(tasks=100, outer_lr={"start": 0.1, "schedule": "steps", "at": [0.5]})
        >>> [round(settings.outer_lr_at(position), 3) for position in (49, 50)]
        [0.1, 0.01]
    """

    start: float
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    end: float = 0.0
    at: tuple[float, ...] = attrs.field(default=(), converter=_tuple_of_list)
    factor: float = 0.1
    warm_up: float = 0.0

    @classmethod
    def of(cls, value: Any) -> Any:
        """A table as a schedule; everything else as it is."""
        if not isinstance(value, Mapping):
            return value
        known = [field.name for field in attrs.fields(cls)]
        for name in value:
            if name not in known:
                raise unknown("key of outer_lr", str(name), known)
        if "start" not in value:
            raise UsageError(
                f"outer_lr: a table needs start, the rate to begin with, got {dict(value)!r:.60}"
            )
        return cls(**value)

    def __attrs_post_init__(self) -> None:
        ordered = isinstance(self.at, tuple) and all(type(x) in (int, float) and 0 < x < 1 for x in self.at)
        ordered = ordered and list(self.at) == sorted(self.at)
        for name, holds, wanted in (
            ("start", _is_number(self.start) and self.start > 0, "a number > 0"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("end", _is_number(self.end) and self.end >= 0, "a number >= 0"),
            ("at", ordered and bool(self.at) == (self.schedule == "steps"),
             "parts of the tasks in (0, 1), in order, for schedule steps alone"),
            ("factor", _is_number(self.factor) and self.factor > 0, "a number > 0"),
            ("warm_up", _is_number(self.warm_up) and 0 <= self.warm_up < 1, "a number >= 0 and < 1"),
        ):  # fmt: skip
            if not holds:
                raise UsageError(f"outer_lr: {name} must be {wanted}, got {getattr(self, name)!r:.60}")

    def at_position(self, position: int, *, of: int) -> float:
        """The rate of the outer step after so many tasks, of all that there are."""
        rising = self.warm_up * of
        if position + 1 < rising:
            return self.start * (position + 1) / rising
        if self.schedule == "steps":
            return self.start * self.factor ** sum(position >= part * of for part in self.at)
        if self.schedule == "constant":
            return self.start
        part = min(1.0, max(0.0, position - rising) / max(1.0, of - 1 - rising))
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * part)) / 2


def _schedule(value: Any) -> Any:
    return OuterSchedule.of(value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -math.inf < value < math.inf  # type: ignore[operator]


_COUNTS = {
    "tasks": 0, "meta_batch": 1, "steps": 0, "test_steps": 0, "validation_interval": 1, "validation_tasks": 1,
    "evaluation_batch": 1, "task_seed": 0, "checkpoint_every": 1,
    "tasks_at_once": 1, "truncate": 1,
}  # fmt: skip
_OPTIONAL = ("test_steps", "checkpoint_every", "tasks_at_once", "truncate")
_CHOICES = {
    "order": ORDERS, "outer_loss": ("mean", "sum"), "outer_clip_scope": ("all", "initialisation"),
    "engine": ("auto", "eager", "compiled"),
}  # fmt: skip


@attrs.frozen(kw_only=True)
class Settings:
    """How a rule and an initialisation are meta-trained (Algorithm 9).

    Args:
        tasks: meta-training tasks, each used once; 0 trains nothing.
        meta_batch: tasks per outer step; the last one is smaller where they do not divide.
        steps: T at training.
        test_steps: T at validation and test; None takes `steps`.
        order: of the meta-gradient, `"first"` or `"second"`.
        outer_lr: the learning rate of Adam, over θ⁰ and φ; or a table, an `OuterSchedule` or a mapping of
            its fields, for one that changes.
        outer_loss: `"mean"` over the meta-batch; Algorithm 9 writes the `"sum"`, which with Adam
            only the clipping notices.
        outer_decay: γ in (0, 1]: the outer loss is the mean of the query losses at t = 1 ... T, each weighing
            γᵀ⁻ᵗ. None takes the one at T alone, as Algorithm 9 has it.
        truncate: the meta-gradient goes back through this many of the last updates; those before only shift
            θ and the state of the rule by constants. What the state started from, say a θ⁰ that the rule
            remembers, keeps its part in the gradient. None goes back through all.
        warm_up: for this part of the tasks, in (0, 1], T doubles, from 1 and at equal distances, to `steps`.
        inner_clip: bounds the support gradient of each task, before the rule sees it.
        outer_clip: bounds the meta-gradient: by value each element, by norm all of it together.
        outer_clip_scope: `"all"`, or the `"initialisation"` alone and not φ.
        validation_interval: tasks between validations; there is one before training and one at its end.
        validation_tasks: tasks of the split `validation`, the same every time.
        evaluation_batch: tasks that are evaluated together; for speed and memory, not for results.
        checkpoint_seconds: seconds between checkpoints, where a path for one is given.
        task_seed: which tasks the family gives; the same for every method and seed to be compared.
        checkpoint_every: θ and the state are kept at every so many inner steps, and all else is computed
            again in the backward pass. None keeps everything up to T = 16, and 50 steps at most beyond.
        tasks_at_once: a larger meta-batch is taken piece by piece, to save memory; None takes it whole.
        engine: `"eager"`; `"compiled"`, one program for the whole meta-step; or `"auto"`, which compiles
            long runs. Numbers of two engines differ by rounding.

    Raises:
        UsageError: for a value that does not fit; it names the field.

    Example:
        >>> from metalearn_core import Clipping, Settings
        >>> settings = Settings(tasks=70_000, meta_batch=4, steps=5, outer_clip=Clipping("norm", 10.0))
        >>> settings.order, settings.evaluation_steps
        ('second', 5)
        >>> growing = Settings(tasks=100, steps=8, warm_up=0.5)
        >>> [growing.at(position).steps for position in (0, 20, 40, 60)]
        [1, 2, 4, 8]
    """

    tasks: int = 70_000
    meta_batch: int = 1
    steps: int = 5
    test_steps: int | None = None
    order: Order = "second"
    outer_lr: float | OuterSchedule = attrs.field(default=1e-3, converter=_schedule)
    outer_loss: Literal["mean", "sum"] = "mean"
    outer_decay: float | None = None
    truncate: int | None = None
    warm_up: float | None = None
    inner_clip: Clipping | None = None
    outer_clip: Clipping | None = None
    outer_clip_scope: Literal["all", "initialisation"] = "all"
    validation_interval: int = 2_500
    validation_tasks: int = 1_000
    evaluation_batch: int = 100
    checkpoint_seconds: float = 30.0
    task_seed: int = 0
    checkpoint_every: int | None = None
    tasks_at_once: int | None = None
    engine: Literal["auto", "eager", "compiled"] = "auto"

    def __attrs_post_init__(self) -> None:
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            whole = type(value) is int and value >= least
            absent = value is None and name in _OPTIONAL
            self._require(name, whole or absent, f"an integer >= {least}")
        for name, low in (("outer_lr", 1e-30), ("checkpoint_seconds", 0.0)):
            value = getattr(self, name)
            if isinstance(value, OuterSchedule):
                continue
            number = type(value) in (int, float) and low <= value < math.inf
            self._require(name, number, "a number > 0" if low else "a number >= 0")
        for name in ("outer_decay", "warm_up"):
            value = getattr(self, name)
            part = value is None or (type(value) in (int, float) and 0 < value <= 1)
            self._require(name, part, "a number > 0 and <= 1, or None")
        for name in ("inner_clip", "outer_clip"):
            self._require(name, isinstance(getattr(self, name), Clipping | None), "a Clipping or None")
        for name, allowed in _CHOICES.items():
            self._require(
                name,
                isinstance(value := getattr(self, name), str) and value in allowed,
                f"one of {', '.join(allowed)}",
            )

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UsageError(f"Settings: {name} must be {wanted}, got {getattr(self, name)!r:.60}")

    @property
    def evaluation_steps(self) -> int:
        """T at validation and test."""
        return self.steps if self.test_steps is None else self.test_steps

    def outer_lr_at(self, position: int) -> float:
        """The learning rate of the outer step after so many tasks."""
        rate = self.outer_lr
        return rate.at_position(position, of=self.tasks) if isinstance(rate, OuterSchedule) else rate

    def at(self, position: int) -> Settings:
        """What holds for the outer step after so many tasks: these, with the T that it has in a warm-up."""
        if self.warm_up is None or position >= self.warm_up * self.tasks or self.steps < 2:
            return self
        shorter = [2**power for power in range((self.steps - 1).bit_length())]
        now = shorter[int(position * len(shorter) / (self.warm_up * self.tasks))]
        return attrs.evolve(self, steps=now, test_steps=self.evaluation_steps)

    @property
    def wanted_engine(self) -> Literal["eager", "compiled"]:
        """What is asked for; `auto` compiles long runs. Whether it can be done shows when it is tried."""
        if self.engine != "auto":
            return self.engine
        return "compiled" if self.tasks // self.meta_batch >= LONG_RUN else "eager"
