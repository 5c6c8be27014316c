"""An outer step of several seeds as one program: meta-gradients, clipping, Adam; none where one diverged."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from metalearn_core.kernels.by_steps import BySteps, is_recomputed
from metalearn_core.kernels.pieces import over_pieces
from metalearn_core.kernels.programs import CompilationError, Programs, require_one_step_for_all
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule, parameters_as
from metalearn_core.settings import Settings
from metalearn_core.task import Task
from metalearn_core.training.meta_gradient import meta_gradient, meta_gradients
from metalearn_core.training.processes import ALONE, FailedElsewhereError, Processes


class Member(Protocol):
    """One seed in training: θ⁰ `[n]`, its rule with φ, and the Adam that moves both."""

    rule: UpdateRule
    theta: Tensor
    optimizer: torch.optim.Adam


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
    """

    def __init__(
        self, rule: UpdateRule, learner: BaseLearner, settings: Settings, programs: Programs | None = None,
        processes: Processes = ALONE,
    ) -> None:  # fmt: skip
        self._processes = processes
        self._rule, self._learner, self._settings = rule, learner, settings
        self._programs = Programs() if programs is None else programs
        self._scale = settings.meta_batch if settings.outer_loss == "sum" else 1
        self._by_steps = is_recomputed(settings.steps, settings.checkpoint_every)
        named = dict(rule.named_parameters())
        self._shapes = {name: p.shape for name, p in named.items() if p.requires_grad}
        self._constants = [name for name, p in named.items() if not p.requires_grad]

    def __call__(self, packed: Packed, task: Task, alive: Tensor) -> tuple[Tensor, Tensor]:
        """One step in place of every seed that is `alive`, `[seeds]`, and stays finite.

        Returns the losses `[seeds]`, and whether the step was taken `[seeds]`. Raises CompilationError.
        """
        if len(packed.members) > 1 and not self._learner.use_vmap:
            raise CompilationError("its base-learner is not batched")
        steps = packed.adam_steps(alive) + 1
        corrections = torch.tensor([1 - 0.9**steps, math.sqrt(1 - 0.999**steps)], dtype=torch.float64)
        constants = [
            torch.stack([dict(m.rule.named_parameters())[name].detach() for m in packed.members])
            for name in self._constants
        ]
        state = [
            packed.values, packed.first, packed.second,
            corrections.to(packed.values), alive.to(packed.values.device),
        ]  # fmt: skip
        # where several seeds cannot go together, each by itself comes next, and its errors are told
        alone = len(packed.members) == 1
        in_pieces = len(task) > (self._settings.tasks_at_once or len(task))
        if self._by_steps or in_pieces or self._processes.count > 1:
            answers = self._by_parts(state, constants, task, alone)
        else:
            arguments = [*state, *constants, *task.tensors]
            whole = functools.partial(self._whole, task)
            answers = self._programs("whole" + task.structure, whole, arguments, eager_first=alone)
        losses, taken, *now = answers
        with torch.no_grad():
            for matrix, new in zip((packed.values, packed.first, packed.second), now, strict=True):
                matrix.copy_(new)
        packed.steps += taken.to(packed.steps).unsqueeze(1)
        return losses, taken

    def _by_parts(
        self, state: Sequence[Tensor], constants: Sequence[Tensor], task: Task, alone: bool
    ) -> Sequence[Tensor]:
        """The same by several programs: of one inner step, or of a piece or share of the meta-batch."""

        def whole(values: Tensor, *rest: Tensor) -> list[Tensor]:
            given = dict(zip(self._constants, rest, strict=False))
            return list(self._meta_gradients(values, given, task.like(rest[len(given) :], stacked=True)))

        def gradients(task: Task) -> Sequence[Tensor]:
            arguments = [state[0], *constants, *task.tensors]
            if self._by_steps:
                require_one_step_for_all(self._rule, self._learner)
                return whole(*arguments)
            return self._programs("gradients" + task.structure, whole, arguments, eager_first=alone)

        def share(task: Task) -> Sequence[Tensor]:
            return over_pieces(gradients, task, self._settings.tasks_at_once)

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
        constants = dict(zip(self._constants, rest, strict=False))
        task = like.like(rest[len(constants) :], stacked=True)
        losses, grad = self._meta_gradients(values, constants, task)
        return self._move(values, first, second, corrections, alive, losses, grad * self._scale)

    def _move(
        self, values: Tensor, first: Tensor, second: Tensor, corrections: Tensor, alive: Tensor,
        losses: Tensor, grad: Tensor,
    ) -> list[Tensor]:  # fmt: skip
        """θ ← θ − λ m̂/(√v̂ + ε)   (Kingma and Ba, 2015), where everything is finite."""
        finite = losses.isfinite() & grad.isfinite().all(1) & alive
        grad = self._clipped(grad)
        m = torch.lerp(first, grad, 0.1)
        v = 0.999 * second + 0.001 * grad.square()
        moved = values - self._settings.outer_lr / corrections[0] * m / (v.sqrt() / corrections[1] + 1e-8)
        kept = finite.unsqueeze(1)
        new = [
            torch.where(kept, now, was)
            for now, was in ((moved, values), (m, first), (v, second))
        ]  # fmt: skip
        return [losses, finite, *new]

    def _meta_gradients(
        self, values: Tensor, constants: dict[str, Tensor], task: Task
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
                found = meta_gradient(self._rule, self._learner, theta[0], task, **settings)
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
