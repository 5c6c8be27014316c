"""The outer loop: Algorithm 9, with validation, the best state, and resumption at any outer step."""

from __future__ import annotations

import copy
import ctypes
import hashlib
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_core.checkpoint import load_checkpoint, save_checkpoint
from metalearn_core.errors import UsageError
from metalearn_core.inner_loop import per_task, trajectory
from metalearn_core.kernels.programs import Engine
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Settings
from metalearn_core.stream import TaskStream
from metalearn_core.task import Task, TaskFamily


@attrs.frozen(eq=False)
class Snapshot:
    """A whole state at one position: θ⁰, φ and the optimiser, with its validation score."""

    position: int
    score: float
    theta: Tensor
    phi: dict[str, Tensor]
    optimizer: dict[str, Any]

    @classmethod
    def of(
        cls, position: int, score: float, theta: Tensor, rule: UpdateRule, adam: torch.optim.Adam
    ) -> Snapshot:
        """A copy of the state as it is."""
        phi = {name: value.detach().clone() for name, value in rule.state_dict().items()}
        optimizer = copy.deepcopy(adam.state_dict())
        return cls(position, score, theta.detach().clone(), phi, optimizer)


@attrs.frozen
class Event:
    """What an observer is told. `kind`: start, engine, step, validation, checkpoint, diverged or end."""

    kind: str
    position: int
    values: Mapping[str, float | str] = attrs.field(factory=dict)


Observer = Callable[[Event], None]


@attrs.define(eq=False)
class Trained:
    """Everything that meta-training knows, and all that it needs to go on.

    Args:
        origin: a hash of the θ⁰ and φ that training began with.
        theta: θ⁰ as it is now, `[n]`; `best` holds that of the best validation.
        rule: the rule with its φ as it is now.
        position: tasks seen.
        generator: the stream that weights were drawn from.
        validations: `(position, mean score)`, in order.
        diverged: why training stopped early (outer step, task), or None.
        engine: the one chosen, `"eager"` or `"compiled"`; empty before the first step.
    """

    rule: UpdateRule
    learner: BaseLearner
    settings: Settings
    theta: Tensor
    optimizer: torch.optim.Adam
    generator: torch.Generator
    best: Snapshot
    origin: str
    position: int = 0
    validations: list[tuple[int, float]] = attrs.field(factory=list)
    diverged: str | None = None
    engine: str = ""

    def at_best(self) -> tuple[UpdateRule, Tensor]:
        """A copy of the rule with φ, and θ⁰, of the best validation."""
        rule = copy.deepcopy(self.rule)
        rule.load_state_dict(self.best.phi)
        return rule, self.best.theta.to(self.theta, copy=True)

    def snapshot(self, score: float) -> Snapshot:
        """The present state, copied."""
        return Snapshot.of(self.position, score, self.theta, self.rule, self.optimizer)

    def save(self, path: Path) -> None:
        """Write everything to a checkpoint."""
        payload = {
            "fingerprint": _fingerprint(self),
            "now": attrs.asdict(self.snapshot(float("nan")), recurse=False),
            "best": attrs.asdict(self.best, recurse=False),
            "generator": self.generator.get_state(),
            "validations": list(self.validations),
            "diverged": self.diverged,
            "engine": self.engine,
        }
        save_checkpoint(path, payload)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint; UsageError if it is of another rule, learner or setting."""
        payload = load_checkpoint(path, _CONTENTS)
        theirs, ours = payload["fingerprint"], _fingerprint(self)
        for key in dict.fromkeys((*ours, *theirs)):
            if theirs.get(key) != ours.get(key):
                raise UsageError(
                    f"checkpoint {path}: it is of another run: {key} is {theirs.get(key)} there and"
                    f" {ours.get(key)} here; move it away to start anew"
                )
        now = Snapshot(**payload["now"])
        with torch.no_grad():
            self.theta.copy_(now.theta)
        self.rule.load_state_dict(now.phi)
        self.optimizer.load_state_dict(now.optimizer)
        self.generator.set_state(payload["generator"])
        self.best, self.position = Snapshot(**payload["best"]), now.position
        self.validations = [(int(where), float(score)) for where, score in payload["validations"]]
        self.diverged, self.engine = payload["diverged"], payload["engine"]


def meta_train(
    rule: UpdateRule, learner: BaseLearner, family: TaskFamily, settings: Settings,
    *, generator: torch.Generator, checkpoint: Path | str | None = None,
    observers: Sequence[Observer] = (),
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

    Raises:
        UsageError: for a family, rule or checkpoint that does not fit.
    """
    rule = copy.deepcopy(rule).to(learner.device, learner.dtype)
    theta = learner.initial(generator).requires_grad_()
    learned = [parameter for parameter in rule.parameters() if parameter.requires_grad]
    adam = torch.optim.Adam([theta, *learned], lr=settings.outer_lr)
    untested = Snapshot.of(0, float("nan"), theta, rule, adam)
    origin = _digest(theta, *rule.state_dict().values())
    trained = Trained(rule, learner, settings, theta, adam, generator, untested, origin)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        trained.restore(path)
    _Training(trained, family, path, list(observers)).run()
    return trained


def meta_test(
    trained: Trained, family: TaskFamily,
    *, tasks: int = 2_000, split: str = "test", steps: int | None = None,
) -> Tensor:  # fmt: skip
    """Scores of the best state on a split: `[tasks, T + 1]`, after each inner step, on the CPU.

    `steps`: T, by default the settings'. Further as in `evaluate`.
    """
    rule, theta = trained.at_best()
    settings = attrs.evolve(trained.settings, test_steps=steps) if steps is not None else trained.settings
    return evaluate(rule, trained.learner, theta, family, settings, split=split, tasks=tasks)


@torch.no_grad()
def evaluate(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, family: TaskFamily, settings: Settings,
    *, split: str, tasks: int,
) -> Tensor:  # fmt: skip
    """Query scores of θ⁰ and a rule, without graphs: `[tasks, T + 1]`, on the CPU.

    Of the settings it reads T at test, the inner clipping, the task seed and the evaluation batch.
    Raises UsageError unless tasks >= 1.
    """
    if tasks < 1:
        raise UsageError(f"evaluate: tasks must be >= 1, got {tasks}")
    stream = TaskStream(family, split, settings.task_seed, learner.device, learner.dtype)
    parts = []
    for task in stream.batches(tasks, settings.evaluation_batch):
        path = trajectory(
            rule, learner, theta.detach(), task.support,
            steps=settings.evaluation_steps, clip=settings.inner_clip,
        )  # fmt: skip
        scores = [per_task(learner.score, now, task.query) for now, _ in path]
        parts.append(torch.stack(scores, 1).cpu())
    return torch.cat(parts)


def _digest(*tensors: Tensor) -> str:
    """A hash of the tensors' bytes; numpy, which torch can do without, is not asked for them."""
    found = hashlib.sha256()
    for tensor in (x.detach().cpu().contiguous() for x in tensors if x.numel()):
        found.update(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))
    return found.hexdigest()


_CONTENTS = {"fingerprint", "now", "best", "generator", "validations", "diverged", "engine"}


def _fingerprint(trained: Trained) -> dict[str, str]:
    """What a checkpoint must agree in. When checkpoints are written has no part in it."""
    own = sorted(vars(trained.rule).items())
    options = {k: v for k, v in own if isinstance(v, bool | int | float | str | list | tuple)}
    layout, plain = trained.learner.layout, attrs.asdict(trained.settings)
    del plain["checkpoint_seconds"]
    return {
        "rule": trained.rule.label,
        "layout": repr(list(zip(layout.names, layout.shapes, strict=True))),
        "learner": f"{trained.learner.describe()}, {trained.theta.dtype}",
        "meta-parameters": repr({k: tuple(v.shape) for k, v in trained.rule.state_dict().items()}),
        "options": repr({k: v for k, v in options.items() if not k.startswith("_")}),
        **{f"settings.{name}": repr(value) for name, value in plain.items()},
        "origin": trained.origin,  # last: it differs wherever something above does
    }


@attrs.define(eq=False)
class _Training:
    """One call of `meta_train`."""

    trained: Trained
    family: TaskFamily
    path: Path | None
    observers: list[Observer]
    saved_at: float = attrs.field(factory=time.monotonic)
    engine: Engine = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        trained = self.trained
        self.engine = Engine(trained.rule, trained.learner, trained.settings, trained.engine)

    def run(self) -> None:
        trained, settings = self.trained, self.trained.settings
        stream = TaskStream(
            self.family, "train", settings.task_seed, trained.learner.device, trained.learner.dtype
        )
        self.tell("start", tasks=settings.tasks)
        while settings.tasks and trained.diverged is None:
            if self.validation_is_due():
                self.validate()
            if trained.position >= settings.tasks:
                break
            count = min(settings.meta_batch, settings.tasks - trained.position)
            self.outer_step(stream.take(trained.position, count))
            if time.monotonic() - self.saved_at >= settings.checkpoint_seconds:
                self.save()
        self.save()
        self.tell("end")

    def validation_is_due(self) -> bool:
        """At 0, each time a multiple of the interval is reached or passed, and at the end."""
        trained, settings = self.trained, self.trained.settings
        if not trained.validations:
            return True
        last, interval = trained.validations[-1][0], settings.validation_interval
        passed = trained.position // interval > last // interval
        return passed or (trained.position == settings.tasks and last != trained.position)

    def validate(self) -> None:
        trained, tasks = self.trained, self.trained.settings.validation_tasks
        scores = evaluate(
            trained.rule, trained.learner, trained.theta, self.family, trained.settings,
            split="validation", tasks=tasks,
        )  # fmt: skip
        score = float(scores[:, -1].double().mean())
        trained.validations.append((trained.position, score))
        if _is_better(score, trained.best.score, trained.learner.higher_is_better):
            trained.best = trained.snapshot(score)
        self.tell("validation", score=score, best=trained.best.score)
        self.save()

    def outer_step(self, task: Task) -> None:
        """One step of Adam on a meta-batch; none, and a reason, where something is not finite."""
        trained, settings = self.trained, self.trained.settings
        loss, grad, phi_grads = self.engine(trained.theta, task)
        if trained.engine != self.engine.name:
            trained.engine = self.engine.name
            self.tell("engine", engine=self.engine.name, note=self.engine.note)
        grads = [grad, *phi_grads.values()]
        if not all(bool(torch.isfinite(x).all()) for x in (loss, *grads)):
            trained.diverged = self.what_diverged(task, loss)
            return self.tell("diverged", message=trained.diverged)
        scale = len(task) if settings.outer_loss == "sum" else 1
        for parameter, g in zip([trained.theta, *trained.rule.parameters()], grads, strict=True):
            parameter.grad = g * scale if parameter.requires_grad else None
        self.clip()
        trained.optimizer.step()
        trained.position += len(task)
        self.tell("step", loss=float(loss))

    def clip(self) -> None:
        """Bound the meta-gradient in place, as the settings say."""
        settings = self.trained.settings
        if settings.outer_clip is None:
            return
        clipped = [self.trained.theta]
        if settings.outer_clip_scope == "all":
            clipped += self.trained.rule.parameters()
        if settings.outer_clip.by == "value":
            torch.nn.utils.clip_grad_value_(clipped, settings.outer_clip.limit)
        else:
            torch.nn.utils.clip_grad_norm_(clipped, settings.outer_clip.limit)

    @torch.no_grad()
    def what_diverged(self, task: Task, loss: Tensor) -> str:
        """One line that names the outer step, the training task, and the inner step."""
        trained, settings = self.trained, self.trained.settings
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
        what = "meta-gradient" if torch.isfinite(loss) else "query loss"
        return f"{where}, training task(s) {trained.position} to {last}: the {what} is not finite"

    def save(self) -> None:
        if self.path is not None:
            self.trained.save(self.path)
            self.tell("checkpoint")
        self.saved_at = time.monotonic()

    def tell(self, kind: str, **values: float | str) -> None:
        event = Event(kind, self.trained.position, values)
        for observer in tuple(self.observers):
            try:
                observer(event)
            except KeyboardInterrupt:
                if self.path is not None:
                    self.trained.save(self.path)
                raise
            except Exception as error:  # a stranger's logger must not take the run down
                self.observers.remove(observer)
                warnings.warn(f"observer {observer!r} failed and is dropped: {error!r}", stacklevel=2)


def _is_better(score: float, best: float, higher_is_better: bool) -> bool:
    """Strictly better; a NaN is never better, and anything else is better than a NaN."""
    if math.isnan(score) or math.isnan(best):
        return math.isnan(best) and not math.isnan(score)
    return score > best if higher_is_better else score < best
