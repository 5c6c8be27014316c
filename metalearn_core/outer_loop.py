"""The outer loop: Algorithm 9 for one seed or several, with validation, the best state, and resumption."""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import attrs
import torch

from metalearn_core.errors import UsageError, WriteError
from metalearn_core.evaluation import evaluate
from metalearn_core.inner_loop import trajectory
from metalearn_core.kernels.engine import Engine
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Settings
from metalearn_core.task import Task, TaskFamily
from metalearn_core.training.checkpoint import save_checkpoint
from metalearn_core.training.processes import ALONE, Processes
from metalearn_core.training.task_stream import TaskStream
from metalearn_core.training.trained import Event, Observer, Trained


def meta_train(
    rule: UpdateRule, learner: BaseLearner, family: TaskFamily, settings: Settings,
    *, generator: torch.Generator, checkpoint: Path | str | None = None,
    observers: Sequence[Observer] = (), processes: Processes = ALONE,
) -> Trained:  # fmt: skip
    """Meta-train θ⁰ and φ with Adam on the mean query loss of each meta-batch (Algorithm 9).

    θ⁰ comes from `learner.initial(generator)`; the tasks depend on `settings.task_seed` alone. The
    rule passed in is copied, to the learner's device and dtype. A loss or a gradient that is not
    finite ends the training, keeps the best state, and is told in `Trained.diverged`.

    Args:
        checkpoint: a path; if it exists, training goes on from there with the numbers that an
            uninterrupted run has.
        observers: called with every `Event`, always between two outer steps. One that fails is named
            in a warning and dropped; one that raises KeyboardInterrupt stops the run, whose
            checkpoint is written first.
        processes: those that train this run together, and all call this alike: each takes its share of
            every meta-batch and every validation. They go on from what process 0 has.

    Raises:
        UsageError: for a family, rule or checkpoint that does not fit.
        LostProcessError: where another process has ended or failed.
    """
    (trained,) = meta_train_seeds(
        [rule], learner, family, settings,
        generators=[generator], checkpoints=[checkpoint], observers=[observers], processes=processes,
    )  # fmt: skip
    return trained


def meta_train_seeds(
    rules: Sequence[UpdateRule], learner: BaseLearner, family: TaskFamily, settings: Settings,
    *, generators: Sequence[torch.Generator], checkpoints: Sequence[Path | str | None] | None = None,
    observers: Sequence[Sequence[Observer]] | None = None, idle: Collection[int] = (),
    processes: Processes = ALONE,
) -> list[Trained]:  # fmt: skip
    """`meta_train` of several seeds on the same tasks; compiled, all of them are one program.

    Each has its own θ⁰, φ, Adam, clipping, validation and best state, and takes the steps that it
    would take alone, to rounding; one that diverges stops by itself, and those that are behind, after
    a crash between two checkpoints, catch up first. Numbers are the same again only for the same seeds
    together.

    Args:
        rules: one for each seed, alike but for the values of φ.
        generators, checkpoints, observers: of each seed, as in `meta_train`.
        idle: indices of seeds that only keep their places in the program, so that the others have the
            numbers that they have with them; they are neither trained nor read nor saved.
        processes: as in `meta_train`.

    Raises:
        UsageError: as `meta_train` does, and for rules that differ in more than φ.
    """
    paths = [None if path is None else Path(path) for path in checkpoints or [None] * len(rules)]
    if len(set(paths) - {None}) < sum(path is not None for path in paths):
        raise UsageError("meta_train_seeds: each seed needs a checkpoint of its own, got one path twice")
    seeds = [
        _Seed(Trained.begin(rule, learner, settings, generator, family), path, list(watchers))
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
        _Training(seeds, family, processes).run()
    return [seed.trained for seed in seeds]


@attrs.define(eq=False)
class _Seed:
    """One seed, where its checkpoint lies, and who is told of it."""

    trained: Trained
    path: Path | None
    observers: list[Observer]
    idle: bool = False

    def tell(self, kind: str, **values: float | str) -> None:
        event = Event(kind, self.trained.position, values)
        for observer in tuple(self.observers):
            try:
                observer(event)
            except WriteError:  # the checkpoint could not be written either
                raise
            except Exception as error:  # a stranger's logger must not take the run down
                self.observers.remove(observer)
                warnings.warn(f"observer {observer!r} failed and is dropped: {error!r}", stacklevel=2)


@attrs.define(eq=False)
class _Training:
    """One call of `meta_train_seeds`."""

    seeds: list[_Seed]
    family: TaskFamily
    processes: Processes
    saved_at: float = attrs.field(factory=time.monotonic)
    engine: Engine = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        members = [seed.trained for seed in self.seeds]
        chosen = next((member.engine for member in members if member.engine), "")
        learner, settings = members[0].learner, members[0].settings
        self.engine = Engine(members, learner, settings, chosen, self.before_compiling, self.processes)

    @property
    def going(self) -> list[_Seed]:
        """The seeds to be trained next, all at the same position: the others have diverged, or are ahead."""
        training = [seed for seed in self.seeds if not seed.idle and seed.trained.diverged is None]
        behind = min((seed.trained.position for seed in training), default=0)
        return [seed for seed in training if seed.trained.position == behind]

    def run(self) -> None:
        self.tell_all("start", tasks=self.seeds[0].trained.settings.tasks)
        self.train()
        self.save()
        self.tell_all("end")

    def train(self) -> None:
        trained = self.seeds[0].trained
        settings, learner = trained.settings, trained.learner
        stream = TaskStream(self.family, "train", settings.task_seed, learner.device, learner.dtype)
        while settings.tasks and (going := self.going):
            self.validate([seed for seed in going if _validation_is_due(seed.trained)])
            position = going[0].trained.position
            if position >= settings.tasks:
                break
            count = min(settings.meta_batch, settings.tasks - position)
            self.outer_step(going, stream.take(position, count))
            if time.monotonic() - self.saved_at >= settings.checkpoint_seconds:
                self.save()

    def validate(self, due: Sequence[_Seed]) -> None:
        for seed in due:
            trained, tasks = seed.trained, seed.trained.settings.validation_tasks
            scores = evaluate(
                trained.rule, trained.learner, trained.theta, self.family, trained.settings,
                split="validation", tasks=tasks, scored=self.engine.scores,
                watch=functools.partial(self.tell_evaluating, seed), processes=self.processes,
            )  # fmt: skip
            score = float(scores[:, -1].double().mean())
            trained.validations.append((trained.position, score))
            if _is_better(score, trained.best.score, trained.learner.higher_is_better):
                trained.best = trained.snapshot(score)
            self.tell(seed, "validation", score=score, best=trained.best.score)
        if due:
            self.save()

    def outer_step(self, going: Sequence[_Seed], task: Task) -> None:
        """One step of Adam on a meta-batch; none, and a reason, where something is not finite."""
        alive = [seed in going for seed in self.seeds]
        answers = zip(alive, *self.engine.step(task, alive, going[0].trained.position), strict=True)
        losses = []
        for seed, (loss, taken) in zip(going, ((x, y) for goes, x, y in answers if goes), strict=True):
            losses.append(loss)
            if taken:
                seed.trained.position += len(task)
            else:
                seed.trained.diverged = _what_diverged(seed.trained, task, loss)
        for seed, loss in zip(going, losses, strict=True):  # told when every seed is where it says it is
            if seed.trained.engine != self.engine.name:
                seed.trained.engine = self.engine.name
                self.tell(seed, "engine", engine=self.engine.name, note=self.engine.note)
            if seed.trained.diverged is None:
                self.tell(seed, "step", loss=loss)
            else:
                self.tell(seed, "diverged", message=seed.trained.diverged)

    def write(self) -> None:
        # a crash in between leaves some of them behind the others: they catch up
        for seed in self.seeds:
            if seed.path is not None:
                save_checkpoint(seed.path, seed.trained.contents())

    def before_compiling(self) -> None:
        """Whoever is told may end the run at any moment until the next event: everything is saved."""
        self.save()
        self.tell_all("compiling")

    def save(self) -> None:
        self.write()
        for seed in self.seeds:
            if seed.path is not None:
                self.tell(seed, "checkpoint")
        self.saved_at = time.monotonic()

    def tell_evaluating(self, seed: _Seed, done: int) -> None:
        self.tell(seed, "evaluating", done=done, of=seed.trained.settings.validation_tasks)

    def tell_all(self, kind: str, **values: float | str) -> None:
        for seed in self.seeds:
            self.tell(seed, kind, **values)

    def tell(self, seed: _Seed, kind: str, **values: float | str) -> None:
        try:
            seed.tell(kind, **values)
        except KeyboardInterrupt:  # an observer's: every seed is where it says it is
            self.write()
            raise


def _validation_is_due(trained: Trained) -> bool:
    """At 0, each time a multiple of the interval is reached or passed, and at the end."""
    if not trained.validations:
        return True
    last, interval = trained.validations[-1][0], trained.settings.validation_interval
    passed = trained.position // interval > last // interval
    return passed or (trained.position == trained.settings.tasks and last != trained.position)


@torch.no_grad()
def _what_diverged(trained: Trained, task: Task, loss: float) -> str:
    """One line that names the outer step, the training task, and the inner step."""
    settings = trained.settings.at(trained.position)
    where = f"outer step {-(-trained.position // settings.meta_batch) + 1}"
    path = trajectory(
        trained.rule, trained.learner, trained.theta.detach(), task.support,
        steps=settings.steps, clip=settings.inner_clip,
    )  # fmt: skip
    for step, (theta, _) in enumerate(path):
        broken = (~torch.isfinite(theta)).any(1).nonzero().flatten().tolist()
        if broken:
            number = trained.position + broken[0]
            return f"{where}, training task {number}: θ is not finite after inner step {step}"
    last = trained.position + len(task) - 1
    what = "meta-gradient" if math.isfinite(loss) else "query loss"
    return f"{where}, training task(s) {trained.position} to {last}: the {what} is not finite"


def _is_better(score: float, best: float, higher_is_better: bool) -> bool:
    """Strictly better; a NaN is never better, and anything else is better than a NaN."""
    if math.isnan(score) or math.isnan(best):
        return math.isnan(best) and not math.isnan(score)
    return score > best if higher_is_better else score < best
