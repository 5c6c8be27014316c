"""The outer loop: Algorithm 9 for one seed or several, with validation, the best state, and resumption."""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import NoneType

import attrs
import torch

from metalearn_core.errors import UsageError, require_callables, require_kinds
from metalearn_core.evaluation import evaluate
from metalearn_core.kernels.engine import Engine
from metalearn_core.kernels.outer_step import gradient_settings
from metalearn_core.learner import BaseLearner
from metalearn_core.many_steps.pace import Pace
from metalearn_core.outer_gradient import MetaGradient, OuterGradient
from metalearn_core.rule import UpdateRule
from metalearn_core.safeguards.same_alone import check_first_batch
from metalearn_core.safeguards.stacked_rule import check_first_update
from metalearn_core.safeguards.training_warnings import (
    require_numbers,
    warn_of_divergence,
    warn_of_no_gradient,
)
from metalearn_core.safeguards.trials import TASKS
from metalearn_core.settings import Settings
from metalearn_core.task import Task, TaskFamily
from metalearn_core.training.checkpoint import save_checkpoint
from metalearn_core.training.events import Observer
from metalearn_core.training.processes import ALONE, Processes
from metalearn_core.training.seed_run import SeedRun, describe_divergence, is_better, is_validation_due
from metalearn_core.training.task_stream import TaskStream
from metalearn_core.training.trained import Trained


def meta_train(
    rule: UpdateRule, learner: BaseLearner, family: TaskFamily, settings: Settings,
    *, generator: torch.Generator, checkpoint: Path | str | None = None,
    observers: Sequence[Observer] = (), processes: Processes = ALONE,
    meta_gradient: MetaGradient | None = None,
) -> Trained:  # fmt: skip
    """Meta-train θ⁰ and φ with Adam on the mean query loss of each meta-batch (Algorithm 9).

    θ⁰ comes from `learner.initial(generator)`; the tasks depend on `settings.task_seed` alone. The rule is
    copied, to the device and dtype of the learner. A loss or a gradient that is not finite ends the training
    with a warning; the best state is kept, and `Trained.diverged` says what happened. A meta-gradient that is
    exactly 0 in the first outer steps is warned of, too. Before the first step, a few tasks together are
    compared with each alone, unless `learner.check_first_batch` is False; so is the rule, unless
    `rule.check_first_update` is False.

    Args:
        rule: the update rule, with the φ to start from.
        learner: the base-learner.
        family: the tasks; the splits `train` and `validation` are read.
        settings: everything else about the two loops.
        generator: draws θ⁰.
        checkpoint: a path; if it exists, training goes on from there with the numbers that an
            uninterrupted run has.
        observers: called with every `Event`, always between two outer steps. One that fails is named
            in a warning and dropped; one that raises KeyboardInterrupt stops the run, whose
            checkpoint is written first. With an attribute `gradient_norm` that is true, it also gets the
            norm of each meta-gradient, as it is after clipping, and steps are taken one by one.
        processes: those that train this run together, and all make the same call: each takes its share of
            every meta-batch and every validation. They go on from what process 0 has.
        meta_gradient: what takes the place of `metalearn_core.meta_gradient`, which is backpropagation: a
            function that is called and answers as it does, such as `make_meta_gradient("reptile")`.

    Returns:
        θ⁰ and φ, now and at the best validation, with everything that is needed to go on.

    Raises:
        UsageError: for a family, rule or checkpoint that does not fit.
        LostProcessError: where another process has ended or failed.

    Example:
        >>> import torch
        >>> from metalearn_core import Settings, make_rule, meta_train
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner = tiny_learner()
        >>> rule = make_rule("gradient-descent", learner.layout, learn_lr="scalar")
        >>> settings = Settings(tasks=8, meta_batch=4, steps=2, validation_interval=4, validation_tasks=5)
        >>> generator = torch.Generator().manual_seed(0)
        >>> trained = meta_train(rule, learner, TinySines(), settings, generator=generator)
        >>> trained.position, [position for position, score in trained.validations]
        (8, [0, 4, 8])
    """
    (trained,) = meta_train_seeds(
        [rule], learner, family, settings,
        generators=[generator], checkpoints=[checkpoint], observers=[observers], processes=processes,
        meta_gradient=meta_gradient,
    )  # fmt: skip
    return trained


def meta_train_seeds(
    rules: Sequence[UpdateRule], learner: BaseLearner, family: TaskFamily, settings: Settings,
    *, generators: Sequence[torch.Generator], checkpoints: Sequence[Path | str | None] | None = None,
    observers: Sequence[Sequence[Observer]] | None = None, idle: Collection[int] = (),
    processes: Processes = ALONE, meta_gradient: MetaGradient | None = None,
) -> list[Trained]:  # fmt: skip
    """Meta-train several seeds on the same tasks; compiled, all of them are one program.

    Each seed has its own θ⁰, φ, Adam, clipping, validation and best state, and takes the steps that it would
    take alone, to rounding. A seed that diverges stops by itself. Seeds that are behind, after a crash
    between two checkpoints, catch up first. Numbers repeat to the bit only for the same seeds together.

    Args:
        rules: one for each seed, alike but for the values of φ.
        learner: the base-learner.
        family: the tasks, as in `meta_train`.
        settings: as in `meta_train`.
        generators: one for each seed; it draws θ⁰.
        checkpoints: a path or None for each seed, all different, as in `meta_train`.
        observers: those of each seed, as in `meta_train`.
        idle: indices of seeds that only keep their places in the program, so that the others get the
            numbers that they get beside them; they are neither trained nor read nor saved.
        processes: as in `meta_train`.
        meta_gradient: as in `meta_train`.

    Returns:
        What `meta_train` returns, one for each seed, in their order.

    Raises:
        UsageError: as `meta_train` does, and for rules that differ in more than φ.
        LostProcessError: where another process has ended or failed.

    Example:
        >>> import torch
        >>> from metalearn_core import Settings, make_rule, meta_train_seeds
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner = tiny_learner()
        >>> rules = [make_rule("gradient-descent", learner.layout) for seed in range(2)]
        >>> generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        >>> settings = Settings(tasks=4, meta_batch=2, steps=1, validation_tasks=5)
        >>> first, second = meta_train_seeds(rules, learner, TinySines(), settings, generators=generators)
        >>> first.position == second.position, bool((first.theta == second.theta).all())
        (True, False)
    """
    _require_one_each(rules, generators, checkpoints, observers)
    require_kinds("meta_train", processes=(processes, Processes))
    paths = [None if path is None else Path(path) for path in checkpoints or [None] * len(rules)]
    if len(set(paths) - {None}) < sum(path is not None for path in paths):
        raise UsageError("meta_train_seeds: each seed needs a checkpoint of its own, got one path twice")
    outer = OuterGradient.of(meta_gradient)
    told = outer.description if outer else ""
    seeds = [
        SeedRun(Trained.begin(rule, learner, settings, generator, family, told), path, list(watchers))
        for rule, generator, path, watchers in zip(
            rules, generators, paths, observers or [()] * len(rules), strict=True
        )
    ]
    for index, seed in enumerate(seeds):
        seed.trained.require_alike(seeds[0].trained)
        if index in idle:
            seed.idle, seed.path, seed.observers = True, None, []
        else:
            processes.begin(seed.trained, seed.path)
    if seeds:
        _Training(seeds, family, processes, outer).run()
    for seed in seeds:
        warn_of_divergence(seed.trained)
    return [seed.trained for seed in seeds]


def _require_one_each(
    rules: object, generators: object, checkpoints: object, observers: object
) -> None:  # fmt: skip
    """UsageError unless there is one of everything for each seed."""
    require_kinds("meta_train_seeds", rules=(rules, (list, tuple)))
    count = len(rules)  # type: ignore[arg-type]
    for name, given in (("generators", generators), ("checkpoints", checkpoints), ("observers", observers)):
        if given is None and name != "generators":
            continue
        if not isinstance(given, list | tuple) or len(given) != count:
            got = f"{len(given)}" if isinstance(given, list | tuple) else f"a {type(given).__name__}"
            raise UsageError(f"meta_train_seeds: {name} must be a list of {count}, one a rule, got {got}")
    for path in checkpoints or ():  # type: ignore[attr-defined]
        require_kinds("meta_train", checkpoint=(path, (Path, str, NoneType)))
    for watchers in observers or ():  # type: ignore[attr-defined]
        require_kinds("meta_train", observers=(watchers, (list, tuple)))
        for watcher in watchers:
            require_callables("meta_train", observer=watcher)


@attrs.define(eq=False)
class _Training:
    """One call of `meta_train_seeds`."""

    seeds: list[SeedRun]
    family: TaskFamily
    processes: Processes
    outer: OuterGradient | None = None
    saved_at: float = attrs.field(factory=time.monotonic)
    pace: Pace = attrs.field(factory=Pace)
    step: int = 0  # of those that one call has taken, the one that is told of
    engine: Engine = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        members = [seed.trained for seed in self.seeds]
        begun = sorted({member.engine for member in members} - {""})
        if len(begun) > 1:
            raise UsageError(
                f"seeds that train together were begun by several engines, {' and '.join(begun)}"
            )
        chosen = "".join(begun)
        learner, settings = members[0].learner, members[0].settings
        self.engine = Engine(
            members, learner, settings, chosen, self.before_compiling, self.processes, self.outer
        )

    @property
    def active_seeds(self) -> list[SeedRun]:
        """The seeds to train next, all at the same position; the others have diverged or are ahead."""
        training = [seed for seed in self.seeds if not seed.idle and seed.trained.diverged is None]
        behind = min((seed.trained.position for seed in training), default=0)
        return [seed for seed in training if seed.trained.position == behind]

    def run(self) -> None:
        self.notify_all("start", tasks=self.seeds[0].trained.settings.tasks)
        self.train()
        self.save()
        self.notify_all("end")

    def train(self) -> None:
        trained = self.seeds[0].trained
        settings, learner = trained.settings, trained.learner
        if any(seed.trained.position < settings.tasks for seed in self.active_seeds):
            self.engine.require_kept()
        stream = TaskStream(self.family, "train", settings.task_seed, learner.device, learner.dtype)
        self.check_first_use(stream)
        while settings.tasks and (active := self.active_seeds):
            self.validate([seed for seed in active if is_validation_due(seed.trained)])
            position = active[0].trained.position
            if position >= settings.tasks:
                break
            count, steps = (
                min(settings.meta_batch, settings.tasks - position),
                self.pace.steps(active, self.seeds),
            )
            since = time.monotonic()
            taken = self.outer_steps(active, stream.take(position, count * steps), steps)
            until_saved = self.saved_at + settings.checkpoint_seconds - (now := time.monotonic())
            self.pace.took(taken, now - since, until_saved)
            if until_saved <= 0:
                self.save()

    def check_first_use(self, stream: TaskStream) -> None:
        """Before anything is compiled: compare a few tasks together with each alone, one seed for all."""
        trained = self.seeds[0].trained
        settings, learner = trained.settings, trained.learner
        if trained.position >= settings.tasks:
            return
        require_numbers(trained)
        check_first_update(trained.rule, trained.theta, TASKS, settings.steps)
        task = stream.take(trained.position, TASKS)
        if settings.steps:
            # another outer gradient may need the first alone
            derivatives = 2 if settings.order == "second" and self.outer is None else 1
            check_first_batch(learner, trained.theta, task.support, what="support", derivatives=derivatives)
        check_first_batch(learner, trained.theta, task.query, *learner.context(task), derivatives=1)
        if self.outer is not None:  # what it refuses is told before anything is trained
            how = gradient_settings(settings.at(trained.position))
            keys = self.outer.keys(trained.generator, trained.position, TASKS, learner.device)
            self.outer(trained.rule, learner, trained.theta.detach(), task, **how, **keys)

    def validate(self, due: Sequence[SeedRun]) -> None:
        for seed in due:
            trained, tasks = seed.trained, seed.trained.settings.validation_tasks
            scores = evaluate(
                trained.rule, trained.learner, trained.theta, self.family, trained.settings,
                split="validation", tasks=tasks, scored=self.engine.scores,
                watch=functools.partial(self.notify_evaluating, seed), processes=self.processes,
            )  # fmt: skip
            score = float(scores[:, -1].double().mean())
            trained.validations.append((trained.position, score))
            if is_better(score, trained.best.score, trained.learner.higher_is_better):
                trained.best = trained.snapshot(score)
            self.notify(seed, "validation", score=score, best=trained.best.score)
        if due:
            self.save()

    def outer_steps(self, active: Sequence[SeedRun], task: Task, count: int) -> int:
        """Steps of Adam on meta-batches that follow one another, `count` or fewer; returns how many."""
        alive = [seed in active for seed in self.seeds]
        size, position = len(task) // count, active[0].trained.position
        for seed in active:
            seed.before_step()
        answers = self.engine.steps(task, alive, position, count)
        for self.step, (losses, taken) in enumerate(zip(*answers, strict=True)):
            found = zip(alive, losses, taken, strict=True)
            moved = [(loss, took) for lives, loss, took in found if lives]
            self.tell(active, moved, task, slice(self.step * size, (self.step + 1) * size))
        return self.step + 1

    def tell(
        self, active: Sequence[SeedRun], answers: Sequence[tuple[float, bool]], task: Task, part: slice
    ) -> None:
        """Tell of the step on a part of the tasks; a seed that diverged took none and gets a reason."""
        for seed, (loss, taken) in zip(active, answers, strict=True):
            if taken:
                seed.trained.position += part.stop - part.start
            else:
                seed.trained.diverged = describe_divergence(seed.trained, task[part], loss)
        for seed, (loss, _) in zip(active, answers, strict=True):  # every position is up to date now
            if seed.trained.engine != self.engine.name:
                seed.trained.engine = self.engine.name
                self.notify(seed, "engine", engine=self.engine.name, note=self.engine.note)
            if seed.trained.diverged is None:
                warn_of_no_gradient(seed.trained)
                self.notify(seed, "step", loss=loss, **seed.gradient_norm())
            else:
                self.notify(seed, "diverged", message=seed.trained.diverged)

    def write(self) -> None:
        # a crash in between leaves some of them behind the others: they catch up
        for seed in self.seeds:
            if seed.path is not None:
                save_checkpoint(seed.path, seed.trained.contents())

    def before_compiling(self) -> None:
        """Save everything: an observer may end the run at any moment until the next event."""
        self.save()
        self.notify_all("compiling")

    def save(self) -> None:
        self.write()
        for seed in self.seeds:
            if seed.path is not None:
                self.notify(seed, "checkpoint")
        self.saved_at = time.monotonic()

    def notify_evaluating(self, seed: SeedRun, done: int) -> None:
        self.notify(seed, "evaluating", done=done, of=seed.trained.settings.validation_tasks)

    def notify_all(self, kind: str, **values: float | str) -> None:
        for seed in self.seeds:
            self.notify(seed, kind, **values)

    def notify(self, seed: SeedRun, kind: str, **values: float | str) -> None:
        try:
            seed.notify(kind, **values)
        except KeyboardInterrupt:  # an observer's: every seed is where it says it is
            self.engine.take_back(self.step + 1)
            self.write()
            raise
