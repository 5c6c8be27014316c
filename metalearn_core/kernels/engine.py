"""How outer steps are taken: by eager code, seed after seed, or by compiled programs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from metalearn_core.errors import UsageError
from metalearn_core.evaluation import scores
from metalearn_core.kernels.by_steps import BySteps, is_recomputed
from metalearn_core.kernels.coordinatewise import fused_networks
from metalearn_core.kernels.outer_step import Member, OuterStep, Packed, gradient_settings
from metalearn_core.kernels.pieces import over_pieces
from metalearn_core.kernels.programs import CompilationError, Programs
from metalearn_core.kernels.scores import CompiledScores
from metalearn_core.kernels.sources import begin
from metalearn_core.learner import BaseLearner
from metalearn_core.many_steps.calls import ManySteps
from metalearn_core.outer_gradient import OuterGradient
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Settings
from metalearn_core.task import Task
from metalearn_core.training.meta_gradient import meta_gradient
from metalearn_core.training.processes import ALONE, Processes

MOST_SECONDS = 0.25
"""How long steps go on in one call at most: Ctrl-C is heard between calls."""


class Engine:
    """Outer steps of all seeds, compiled where the settings ask for it and it can be done.

    `engine = "auto"` compiles long runs. What cannot be compiled for all seeds at once is compiled for each
    by itself; what cannot be compiled at all runs eager; `note` says in one line what and why.

    Args:
        members: the seeds. Their tensors become views of what a program works on, once one is used.
        chosen: `"eager"` or `"compiled"` where a run is resumed that had chosen already.
        before_compiling: called before each program is compiled, with every seed where it says it is.
        processes: those that share every meta-batch. Each runs eager or a compiled gradient of its share;
            Adam, in either way, moves what they have summed.
        outer: what takes the place of backpropagation, or None.
    """

    def __init__(
        self, members: Sequence[Member], learner: BaseLearner, settings: Settings, chosen: str = "",
        before_compiling: Callable[[], None] = lambda: None, processes: Processes = ALONE,
        outer: OuterGradient | None = None,
    ) -> None:  # fmt: skip
        self._outer = outer
        self.note, self._processes, self._kept = "", processes, chosen
        self._members, self._meta_batch = members, settings.meta_batch
        self._learner, self._settings, self._why_eager = learner, settings, ""
        self.name = chosen or settings.wanted_engine
        if self.name == "compiled" and (missing := self._missing_compiler()):
            self.name, self.note, self._why_eager = "eager", f"runs eager: {missing}", missing
        elif processes.count > 1:
            self.note = f"{processes.count} processes share each meta-batch, {self.name}"
        if self.name == "compiled" and learner.device.type == "cpu":
            _begin_sources(members[0].rule)
        self._before_compiling = before_compiling
        self._many: ManySteps | None = None
        self._steps: dict[int, OuterStep] = {}
        self._packs = [Packed(members)] if self.name == "compiled" else []
        scored = CompiledScores(learner, settings, Programs(before_compiling))
        self._scores = scored if self.name == "compiled" else None
        self._plain = False  # a compiler that failed once makes no kernel for networks either

    def require_kept(self) -> None:
        """UsageError where a training that was begun by compiled programs would go on by eager code."""
        if self._kept == "compiled" and self.name == "eager":
            raise UsageError(
                f"the training was begun compiled and cannot go on so here ({self._why_eager}), and eager it"
                " would end in other numbers: go on where it can be compiled, or begin anew elsewhere with"
                " engine eager"
            )

    def _missing_compiler(self) -> str | None:
        """What compiling needs and some process lacks, or None: all of them go the same way."""
        own, ranks = _missing_compiler(self._learner.device), range(self._processes.count)
        lacking = self._processes.each(lambda _: torch.tensor(own is not None), ranks)
        return own or ("another process has no C++ compiler" if any(lacking) else None)

    def step(self, task: Task, alive: Sequence[bool], position: int) -> tuple[list[float], list[bool]]:
        """One step of every seed that is alive, after `position` tasks: losses, and which took it.

        A seed takes none where something is not finite. A meta-batch smaller than the others, the last
        one, is left to eager code: it comes once.
        """
        while self.name == "compiled" and len(task) == self._meta_batch:
            try:
                answers = self._compiled(task, torch.tensor(alive), position)
                self._kept = self.name
                return answers
            except CompilationError as error:
                self._fall_back(error)
        settings = self._settings.at(position)
        eager = [
            eager_step(member, self._learner, settings, task, self._processes, self._outer, position)
            if is_alive
            else (0.0, False)
            for member, is_alive in zip(self._members, alive, strict=True)
        ]
        return [loss for loss, _ in eager], [taken for _, taken in eager]

    def steps(
        self, task: Task, alive: Sequence[bool], position: int, count: int
    ) -> tuple[list[list[float]], list[list[bool]]]:
        """Steps on `count` meta-batches that follow one another in `task`: what `step` answers, of each.

        They may end early: after one, where they cannot be taken in one call; after a seed took none; and
        after `MOST_SECONDS`. `take_back` undoes those that nobody has been told of.
        """
        alike = self._settings.at(position) == self._settings.at(position + len(task) - 1)
        self._many = None
        if count > 1 and alike and self.name == "compiled" and len(self._packs) == 1:
            step = self._outer_step(position)
            self._many = step.many(self._packs[0], task, torch.tensor(alive), position, count)
        if self._many is None:
            losses, taken = self.step(task[: len(task) // count], alive, position)
            return [losses], [taken]
        losses_of, taken_by = self._many.take(MOST_SECONDS)
        return losses_of.tolist(), taken_by.tolist()

    def take_back(self, count: int) -> None:
        """Have only the first `count` of the last call's steps taken."""
        if self._many is not None:
            self._many.take_back(count)

    def scores(self, rule: UpdateRule, theta: Tensor, task: Task) -> Tensor:
        """Query scores of a meta-batch of validation tasks after each inner step: `[tasks, T + 1]`."""
        settings = self._settings
        if self.name == "eager":
            return scores(rule, self._learner, theta, task, settings)
        whole = len(task) == min(settings.evaluation_batch, settings.validation_tasks)
        try:
            if self._scores is not None and whole:
                return self._scores(rule, theta, task)
        except CompilationError as error:
            self._scores = None  # one that reads the step: each step would be a program
            self._plain = error.__cause__ is not None
        with nullcontext() if self._plain else fused_networks():
            return scores(rule, self._learner, theta, task, settings)

    def _compiled(self, task: Task, alive: Tensor, position: int) -> tuple[list[float], list[bool]]:
        step = self._outer_step(position)
        parts = torch.split(alive, [len(pack.members) for pack in self._packs])
        answers = [
            step(pack, task, part, position) if part.any() else (torch.zeros(len(part)), part)
            for pack, part in zip(self._packs, parts, strict=True)
        ]
        losses, taken = (torch.cat(found) for found in zip(*answers, strict=True))
        return losses.tolist(), taken.tolist()

    def _outer_step(self, position: int) -> OuterStep:
        """The step of this T: in a warm-up there are several."""
        settings = self._settings.at(position)
        if settings.steps not in self._steps:
            programs = Programs(self._before_compiling)
            rule = self._members[0].rule
            self._steps[settings.steps] = OuterStep(
                rule, self._learner, settings, programs, self._processes, self._outer
            )
        return self._steps[settings.steps]

    def _fall_back(self, error: CompilationError) -> None:
        rule = self._members[0].rule.label
        why = str(error).removeprefix(f"rule {rule}: ")
        if len(self._packs) < len(self._members):
            self._packs = [Packed([member]) for member in self._members]
            self.note = f"rule {rule} cannot be compiled for several seeds at once; each is by itself: {why}"
        else:
            self.name, self.note = "eager", f"rule {rule} cannot be compiled and runs eager: {why}"
            self._why_eager = why
            self.require_kept()


def eager_step(
    member: Member, learner: BaseLearner, settings: Settings, task: Task, processes: Processes = ALONE,
    outer: OuterGradient | None = None, position: int = 0,
) -> tuple[float, bool]:  # fmt: skip
    """The loss, and whether everything was finite and the step taken, the one after `position` tasks."""
    rule, theta, every = member.rule, member.theta, settings.checkpoint_every
    how = gradient_settings(settings)

    def gradients(task: Task, first: int) -> list[Tensor]:
        if outer is not None:
            keys = outer.keys(member.generator, position + first, len(task), theta.device)
            loss, grad, of_phi = outer(rule, learner, theta, task, **how, **keys)
        elif is_recomputed(settings.steps, every):
            by_steps = BySteps(rule, learner, **how, checkpoint_every=every)
            loss, grad, of_phi = by_steps(theta, dict(rule.named_parameters()), task)
        else:
            loss, grad, of_phi = meta_gradient(rule, learner, theta, task, **how)
        return [loss, grad, *of_phi.values()]

    def in_pieces(task: Task, first: int) -> Sequence[Tensor]:
        return over_pieces(gradients, task, settings.tasks_at_once, first)

    like = [theta.new_zeros(()), theta, *rule.parameters()]
    loss, *grads = processes.mean_over(task, in_pieces, like)
    if not all(bool(torch.isfinite(x).all()) for x in (loss, *grads)):
        return float(loss), False
    scale = len(task) if settings.outer_loss == "sum" else 1
    for parameter, g in zip([member.theta, *member.rule.parameters()], grads, strict=True):
        parameter.grad = g * scale if parameter.requires_grad else None
    _clip(member, settings)
    for group in member.optimizer.param_groups:
        group["lr"] = settings.outer_lr_at(position)
    member.optimizer.step()
    return float(loss), True


def _clip(member: Member, settings: Settings) -> None:
    """Bound the meta-gradient in place, as the settings say."""
    if settings.outer_clip is None:
        return
    clipped: list[Tensor] = [member.theta]
    if settings.outer_clip_scope == "all":
        clipped += member.rule.parameters()
    if settings.outer_clip.by == "value":
        torch.nn.utils.clip_grad_value_(clipped, settings.outer_clip.limit)
    else:
        torch.nn.utils.clip_grad_norm_(clipped, settings.outer_clip.limit)


def _begin_sources(rule: UpdateRule) -> None:
    """Have this library's own C++ compiled on another core while the first program is traced."""
    kernels, loop = "metalearn_core.kernels", "metalearn_core.many_steps"
    has_matrix = any(parameter.ndim == 2 for parameter in rule.parameters())  # as a network has
    networks = [("coordinatewise.cpp", kernels)] * has_matrix
    begin(("products.cpp", kernels), *networks, ("many_steps.cpp", loop))


def _missing_compiler(device: torch.device) -> str | None:
    """What compiling needs and is not here, or None."""
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "no C++ compiler is installed"
    return None
