"""An outer step of several seeds as one program: meta-gradients, clipping, Adam; none where one diverged."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from metalearn_core.kernels.by_steps import UNROLLED, BySteps, is_recomputed
from metalearn_core.kernels.pieces import over_pieces
from metalearn_core.kernels.programs import CompilationError, Programs, require_one_step_for_all
from metalearn_core.learner import BaseLearner
from metalearn_core.many_steps.calls import ManySteps
from metalearn_core.outer_gradient import KEYS, OuterGradient
from metalearn_core.rule import UpdateRule, parameters_as
from metalearn_core.settings import OuterSchedule, Settings
from metalearn_core.task import Task
from metalearn_core.training.meta_gradient import meta_gradient, meta_gradients
from metalearn_core.training.processes import ALONE, FailedElsewhereError, Processes

FIRST_STEPS = 3
"""Steps of a training that are taken one by one: they compile, and their gradients are looked at."""


class Member(Protocol):
    """One seed in training: θ⁰ `[n]`, its rule with φ, the Adam that moves both, and its random stream."""

    rule: UpdateRule
    theta: Tensor
    optimizer: torch.optim.Adam
    generator: torch.Generator


class Packed:
    """The seeds' θ⁰, φ and Adam's two averages as the rows of three matrices.

    Each member's own tensors become views of its row: whatever reads or writes one sees the other.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        learned = [self._learned(member) for member in members]
        flat = [torch.cat([x.detach().reshape(-1) for x in tensors]) for tensors in learned]
        self.values = torch.stack(flat)
        self.first, self.second = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.steps = torch.zeros(len(members), len(learned[0]))
        ends = list(accumulate((x.numel() for x in learned[0]), initial=0))
        for row, (member, tensors) in enumerate(zip(members, learned, strict=True)):
            for column, (tensor, place) in enumerate(zip(tensors, pairwise(ends), strict=True)):
                self._tie(row, column, slice(*place), tensor, member.optimizer)

    @staticmethod
    def _learned(member: Member) -> list[Tensor]:
        return [member.theta, *(p for p in member.rule.parameters() if p.requires_grad)]

    def _tie(self, row: int, column: int, place: slice, tensor: Tensor, adam: torch.optim.Adam) -> None:
        values, first, second = (
            matrix[row, place].view(tensor.shape) for matrix in (self.values, self.first, self.second)
        )
        step, before = self.steps[row, column], adam.state.get(tensor, {})
        if before:
            first.copy_(before["exp_avg"]), second.copy_(before["exp_avg_sq"]), step.copy_(before["step"])
        tensor.data = values
        adam.state[tensor] = {"step": step, "exp_avg": first, "exp_avg_sq": second}

    def adam_steps(self, alive: Tensor) -> int:
        """Steps of Adam that the seeds which are `alive`, `[seeds]`, have taken."""
        return int(self.steps[alive].max())


def gradient_settings(settings: Settings) -> dict[str, Any]:
    """What of the settings a meta-gradient depends on, by the names that it is asked for with."""
    return {
        "steps": settings.steps, "order": settings.order, "clip": settings.inner_clip,
        "truncate": settings.truncate, "outer_decay": settings.outer_decay,
    }  # fmt: skip


class OuterStep:
    """What an outer step does to a pack of seeds, compiled once for each shape.

    Args:
        rule: any seed's; they differ in the values of φ alone.
        learner, settings: as in `metalearn_core.meta_train`.
        programs: where what is compiled is kept.
        processes: those that share every meta-batch; between the gradients and Adam they sum.
        outer: what takes the place of backpropagation, or None; of one seed at a time.
    """

    def __init__(
        self, rule: UpdateRule, learner: BaseLearner, settings: Settings, programs: Programs | None = None,
        processes: Processes = ALONE, outer: OuterGradient | None = None,
    ) -> None:  # fmt: skip
        self._processes, self._outer = processes, outer
        self._rule, self._learner, self._settings = rule, learner, settings
        self._programs = Programs() if programs is None else programs
        self._scale = settings.meta_batch if settings.outer_loss == "sum" else 1
        self._by_steps = outer is None and is_recomputed(settings.steps, settings.checkpoint_every)
        named = dict(rule.named_parameters())
        self._shapes = {name: p.shape for name, p in named.items() if p.requires_grad}
        self._constants = [name for name, p in named.items() if not p.requires_grad]

    def __call__(self, packed: Packed, task: Task, alive: Tensor, position: int = 0) -> tuple[Tensor, Tensor]:
        """One step, after `position` tasks, in place of every seed that is `alive`, and stays finite.

        Returns the losses `[seeds]`, and whether the step was taken `[seeds]`. Raises CompilationError.
        """
        if len(packed.members) > 1 and not self._learner.use_vmap:
            raise CompilationError("its base-learner is not batched")
        if self._outer is not None:
            self._require_compilable(len(packed.members), self._outer)
        state, constants = self._state(packed, alive, position), self._constants_of(packed)
        # where several seeds cannot go together, each by itself comes next, and its errors are told
        alone = len(packed.members) == 1
        if not self._is_whole(len(task)):
            keys = functools.partial(self._keys, packed)
            answers = self._by_parts(
                state, constants, task, alone, lambda at, part: keys(position + at, part)
            )
        else:
            arguments = [*state, *constants, *self._keys(packed, position, task), *task.tensors]
            whole = functools.partial(self._whole, task)
            answers = self._programs("whole" + task.structure, whole, arguments, eager_first=alone)
        losses, taken, *now = answers
        with torch.no_grad():
            for matrix, new in zip((packed.values, packed.first, packed.second), now, strict=True):
                matrix.copy_(new)
        packed.steps += taken.to(packed.steps).unsqueeze(1)
        return losses, taken

    def _require_compilable(self, seeds: int, outer: OuterGradient) -> None:
        """CompilationError for an outer gradient that cannot be one program for so many seeds and steps."""
        if seeds > 1:
            raise CompilationError(f"meta-gradient {outer.name!r} takes one seed at a time")
        if is_recomputed(self._settings.steps, None):
            raise CompilationError(
                f"meta-gradient {outer.name!r} is one program for all inner steps, which {UNROLLED} are the"
                f" most for, and T is {self._settings.steps}"
            )

    def _keys(self, packed: Packed, position: int, task: Task) -> list[Tensor]:
        """What an outer gradient draws random numbers by, if it does; of the one seed that there then is."""
        if self._outer is None:
            return []
        (member,) = packed.members
        return list(self._outer.keys(member.generator, position, len(task), packed.values.device).values())

    def many(self, packed: Packed, task: Task, alive: Tensor, position: int, count: int) -> ManySteps | None:
        """`count` steps after `position` tasks, ready to be taken: on the meta-batches of `task`, in order.

        None where they cannot be taken in one call. The first step of a shape has to come before.
        """
        size = len(task) // count
        if self._outer is not None or not self._is_whole(size) or packed.adam_steps(alive) < FIRST_STEPS:
            return None
        state, constants = self._state(packed, alive, position, count), self._constants_of(packed)
        data, numbers = [x.contiguous() for x in task.tensors], len(state[3]) // count
        one = [*state[:3], state[3][:numbers], state[4], *constants, *(x[:size] for x in data)]
        entry = self._programs.entry("whole" + task.structure, one)
        if entry is None:
            return None
        rows = [0, 0, 0, numbers, 0, *[0] * len(constants), *[size] * len(data)]
        return ManySteps(entry, count, [*state, *constants, *data], rows, packed.steps)

    def _is_whole(self, tasks: int) -> bool:
        """Whether a step on so many tasks is one program."""
        in_pieces = tasks > (self._settings.tasks_at_once or tasks)
        return not (self._by_steps or in_pieces or self._processes.count > 1)

    def _state(self, packed: Packed, alive: Tensor, position: int, count: int = 1) -> list[Tensor]:
        """What a step moves, the numbers of each of `count` steps after `position` tasks, and `alive`.

        The numbers of a step are Adam's two corrections and, where it varies, the learning rate.
        """
        settings, taken = self._settings, packed.adam_steps(alive)
        numbers: list[float] = []
        for ahead in range(count):
            step = taken + ahead + 1
            numbers += [1 - 0.9**step, math.sqrt(1 - 0.999**step)]
            if isinstance(settings.outer_lr, OuterSchedule):
                numbers.append(settings.outer_lr_at(position + ahead * settings.meta_batch))
        given = torch.tensor(numbers, dtype=torch.float64).to(packed.values)
        return [packed.values, packed.first, packed.second, given, alive.to(packed.values.device)]

    def _constants_of(self, packed: Packed) -> list[Tensor]:
        """Those φ that are not learned, of every seed."""
        return [
            torch.stack([dict(m.rule.named_parameters())[name].detach() for m in packed.members])
            for name in self._constants
        ]

    def _by_parts(
        self, state: Sequence[Tensor], constants: Sequence[Tensor], task: Task, alone: bool,
        keys: Callable[[int, Task], list[Tensor]],
    ) -> Sequence[Tensor]:  # fmt: skip
        """The same by several programs: of one inner step, or of a piece or share of the meta-batch."""

        def whole(values: Tensor, *rest: Tensor) -> list[Tensor]:
            return list(self._meta_gradients(values, *self._taken_apart(task, rest)))

        def gradients(task: Task, first: int) -> Sequence[Tensor]:
            arguments = [state[0], *constants, *keys(first, task), *task.tensors]
            if self._by_steps:
                require_one_step_for_all(self._rule, self._learner)
                return whole(*arguments)
            return self._programs("gradients" + task.structure, whole, arguments, eager_first=alone)

        def share(task: Task, first: int) -> Sequence[Tensor]:
            return over_pieces(gradients, task, self._settings.tasks_at_once, first)

        try:
            like = [state[0].new_zeros(len(state[0])), state[0]]
            losses, grad = self._processes.mean_over(task, share, like)
        except FailedElsewhereError as error:  # one that cannot compile; all must go the same way
            raise CompilationError(str(error)) from error
        moved = [*state, losses, grad * self._scale]
        if self._processes.count > 1:  # eager: every machine then rounds alike, and none can fail alone
            return self._move(*moved)
        return self._programs("move", self._move, moved)

    def _whole(
        self, like: Task, values: Tensor, first: Tensor, second: Tensor, corrections: Tensor, alive: Tensor,
        *rest: Tensor,
    ) -> list[Tensor]:  # fmt: skip
        """Meta-gradients, and the step that they lead to."""
        losses, grad = self._meta_gradients(values, *self._taken_apart(like, rest))
        return self._move(values, first, second, corrections, alive, losses, grad * self._scale)

    def _taken_apart(
        self, like: Task, rest: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any], Task]:
        """What is constant of φ, the keyword `keys` where there is one, and the tasks."""
        constants = dict(zip(self._constants, rest, strict=False))
        keyed = self._outer is not None and self._outer.keyed
        first = len(constants) + keyed
        return constants, {KEYS: rest[first - 1]} if keyed else {}, like.like(rest[first:], stacked=True)

    def _move(
        self, values: Tensor, first: Tensor, second: Tensor, corrections: Tensor, alive: Tensor,
        losses: Tensor, grad: Tensor,
    ) -> list[Tensor]:  # fmt: skip
        """θ ← θ − λ m̂/(√v̂ + ε)   (Kingma and Ba, 2015), where everything is finite."""
        finite = losses.isfinite() & grad.isfinite().all(1) & alive
        grad = self._clipped(grad)
        m = torch.lerp(first, grad, 0.1)
        v = 0.999 * second + 0.001 * grad.square()
        rate = self._settings.outer_lr
        lr = corrections[2] if isinstance(rate, OuterSchedule) else rate
        moved = values - lr / corrections[0] * m / (v.sqrt() / corrections[1] + 1e-8)
        kept = finite.unsqueeze(1)
        new = [
            torch.where(kept, now, was)
            for now, was in ((moved, values), (m, first), (v, second))
        ]  # fmt: skip
        return [losses, finite, *new]

    def _meta_gradients(
        self, values: Tensor, constants: dict[str, Tensor], keys: dict[str, Any], task: Task
    ) -> tuple[Tensor, Tensor]:
        """Losses `[seeds]` and, for what is learned, gradients `[seeds, N]`."""
        seeds, n = len(values), self._learner.layout.size
        sizes = [n, *(shape.numel() for shape in self._shapes.values())]
        theta, *parts = torch.split(values, sizes, 1)
        learned = zip(self._shapes.items(), parts, strict=True)
        phi = {name: part.reshape(seeds, *shape) for (name, shape), part in learned} | constants
        settings = gradient_settings(self._settings)
        if self._by_steps:
            single = {name: value[0] for name, value in phi.items()}
            every = self._settings.checkpoint_every
            run = functools.partial(self._programs, eager_first=seeds == 1)
            step = BySteps(
                self._rule, self._learner, **settings, seeds=seeds > 1, checkpoint_every=every, run=run
            )
            found = step(theta, phi, task) if seeds > 1 else step(theta[0], single, task)
        elif seeds > 1:
            found = meta_gradients(self._rule, self._learner, theta, phi, task, **settings)
        else:
            own = {
                name: value[0].detach().requires_grad_(name in self._shapes) for name, value in phi.items()
            }
            with parameters_as(self._rule, own):
                gradient = meta_gradient if self._outer is None else self._outer
                found = gradient(self._rule, self._learner, theta[0], task, **settings, **keys)
        losses, of_theta, of_phi = found
        flat = [of_phi[name].reshape(seeds, -1) for name in self._shapes]
        grad = torch.cat([of_theta.reshape(seeds, -1), *flat], 1)
        return losses.reshape(seeds), grad

    def _clipped(self, grad: Tensor) -> Tensor:
        """The meta-gradients as the settings bound them, each seed's by its own norm."""
        clip, n = self._settings.outer_clip, self._learner.layout.size
        if clip is None:
            return grad
        if self._settings.outer_clip_scope == "all":
            return clip(grad)
        return torch.cat([clip(grad[:, :n]), grad[:, n:]], 1)
