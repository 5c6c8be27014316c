"""The outer loop: Algorithm 9, with validation, the best state, and resumption at any outer step."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from metalearn_core.adapt import ORDERS, Clipping, Order, task_meta_gradient, task_scores, trajectory
from metalearn_core.checkpoint import load_checkpoint, save_checkpoint
from metalearn_core.errors import UsageError, unknown
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.stream import TaskStream
from metalearn_core.task import Task, TaskFamily


def _at_least(minimum: int) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise UsageError(
                f"Settings: {attribute.name} must be an integer >= {minimum}, got {value!r}"
            )

    return check


def _positive(_: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise UsageError(f"Settings: {attribute.name} must be positive, got {value!r}")


def _one_of(*allowed: str) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in allowed:
            raise unknown(f"{attribute.name} in Settings:", str(value), allowed)

    return check


@attrs.frozen(kw_only=True)
class Settings:
    """How a rule and an initialisation are meta-trained.

    Args:
        tasks: meta-training tasks, each used once; 0 trains nothing.
        meta_batch: tasks per outer step; the last one is smaller where they do not divide.
        steps, test_steps: T at training, and at validation and test (None: the same).
        order: of the meta-gradient.
        outer_lr: of Adam, over θ⁰ and φ.
        outer_loss: `"mean"` over the meta-batch; Algorithm 9 writes the `"sum"`, which with Adam
            only the clipping notices.
        inner_clip: on each task's support gradient, before the rule sees it.
        outer_clip: on the meta-gradient: by value each element, by norm all of it together.
        outer_clip_scope: `"all"`, or the `"initialisation"` alone and not φ.
        validation_interval: tasks between validations; there is one before training and one at its end.
        validation_tasks: tasks of split `validation`, the same every time.
        evaluation_batch: tasks that are evaluated together; for speed and memory, not for results.
        checkpoint_seconds: time between checkpoints, where a path for one is given.
        task_seed: which tasks the family gives; the same for every method and seed to be compared.
        engine: how the meta-step is run.
    """

    tasks: int = attrs.field(default=70_000, validator=_at_least(0))
    meta_batch: int = attrs.field(default=1, validator=_at_least(1))
    steps: int = attrs.field(default=5, validator=_at_least(0))
    test_steps: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(_at_least(0))
    )
    order: Order = attrs.field(default="second", validator=_one_of(*ORDERS))
    outer_lr: float = attrs.field(default=1e-3, validator=_positive)
    outer_loss: Literal["mean", "sum"] = attrs.field(
        default="mean", validator=_one_of("mean", "sum")
    )
    inner_clip: Clipping | None = None
    outer_clip: Clipping | None = None
    outer_clip_scope: Literal["all", "initialisation"] = attrs.field(
        default="all", validator=_one_of("all", "initialisation")
    )
    validation_interval: int = attrs.field(default=2_500, validator=_at_least(1))
    validation_tasks: int = attrs.field(default=1_000, validator=_at_least(1))
    evaluation_batch: int = attrs.field(default=100, validator=_at_least(1))
    checkpoint_seconds: float = attrs.field(default=30.0, validator=_positive)
    task_seed: int = attrs.field(default=0, validator=_at_least(0))
    engine: Literal["eager"] = attrs.field(default="eager", validator=_one_of("eager"))

    @property
    def evaluation_steps(self) -> int:
        """T at validation and test."""
        return self.steps if self.test_steps is None else self.test_steps


@attrs.frozen(eq=False)
class Snapshot:
    """A whole state at one position: θ⁰, φ and the optimiser, with its validation score."""

    position: int
    score: float
    theta: Tensor
    phi: dict[str, Tensor]
    optimizer: dict[str, Any]


@attrs.frozen
class Event:
    """What an observer is told. `kind`: start, step, validation, checkpoint, diverged or end."""

    kind: str
    position: int
    values: Mapping[str, float | str] = attrs.field(factory=dict)


Observer = Callable[[Event], None]


@attrs.define(eq=False)
class Trained:
    """Everything that meta-training knows, and all that it needs to go on.

    Args:
        theta: θ⁰ as it is now, `[n]`; `best` holds that of the best validation.
        rule: the rule with its φ as it is now.
        position: tasks seen.
        generator: the stream that weights were drawn from.
        validations: `(position, mean score)`, in order.
        diverged: why training stopped early (outer step, task), or None.
    """

    rule: UpdateRule
    learner: BaseLearner
    settings: Settings
    theta: Tensor
    optimizer: torch.optim.Adam
    generator: torch.Generator
    best: Snapshot
    position: int = 0
    validations: list[tuple[int, float]] = attrs.field(factory=list)
    diverged: str | None = None

    def at_best(self) -> tuple[UpdateRule, Tensor]:
        """A copy of the rule with φ, and θ⁰, of the best validation."""
        rule = copy.deepcopy(self.rule)
        rule.load_state_dict(self.best.phi)
        return rule, self.best.theta.clone()

    def snapshot(self, score: float) -> Snapshot:
        """The present state, copied."""
        phi = {name: value.detach().clone() for name, value in self.rule.state_dict().items()}
        optimizer = copy.deepcopy(self.optimizer.state_dict())
        return Snapshot(self.position, score, self.theta.detach().clone(), phi, optimizer)

    def save(self, path: Path) -> None:
        """Write everything to a checkpoint."""
        payload = {
            "fingerprint": _fingerprint(self.rule, self.learner, self.settings),
            "now": attrs.asdict(self.snapshot(0.0), recurse=False),
            "best": attrs.asdict(self.best, recurse=False),
            "generator": self.generator.get_state(),
            "validations": list(self.validations),
            "diverged": self.diverged,
        }
        save_checkpoint(path, payload)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint; UsageError if it belongs to another rule, learner or setting."""
        payload = load_checkpoint(path)
        _require_same(path, payload["fingerprint"], _fingerprint(self.rule, self.learner, self.settings))
        now = Snapshot(**payload["now"])
        with torch.no_grad():
            self.theta.copy_(now.theta)
        self.rule.load_state_dict(now.phi)
        self.optimizer.load_state_dict(now.optimizer)
        self.generator.set_state(payload["generator"])
        self.best = Snapshot(**payload["best"])
        self.position = now.position
        self.validations = [(int(where), float(score)) for where, score in payload["validations"]]
        self.diverged = payload["diverged"]


def meta_train(
    rule: UpdateRule,
    learner: BaseLearner,
    family: TaskFamily,
    settings: Settings,
    *,
    generator: torch.Generator,
    checkpoint: Path | str | None = None,
    observers: Sequence[Observer] = (),
) -> Trained:
    """Meta-train θ⁰ and φ with Adam on the mean query loss of each meta-batch (Algorithm 9).

    θ⁰ comes from `learner.initial(generator)`; the tasks depend on `settings.task_seed` alone. The
    rule passed in is copied. A loss or a gradient that is not finite ends the training, keeps the
    best state, and is told in `Trained.diverged`.

    Args:
        checkpoint: a path; if it exists, training goes on from there with the numbers that an
            uninterrupted run has. An observer may raise KeyboardInterrupt to stop a run: the
            checkpoint is written first.
        observers: called with every `Event`; one that fails is named in a warning and dropped.

    Raises:
        UsageError: for a family, rule or checkpoint that does not fit.
    """
    trained = _fresh(rule, learner, settings, generator)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        trained.restore(path)
    streams = [
        TaskStream(family, split, settings.task_seed, learner.device, learner.dtype)
        for split in ("train", "validation")
    ]
    _Training(trained, *streams, path, list(observers)).run()
    return trained


def meta_test(
    trained: Trained,
    family: TaskFamily,
    *,
    tasks: int = 2_000,
    split: str = "test",
    steps: int | None = None,
) -> Tensor:
    """Scores of the best state on a split: `[tasks, T + 1]`, after each inner step, on the CPU.

    `steps`: T, by default the settings'. Further as in `evaluate`.
    """
    settings = trained.settings
    rule, theta = trained.at_best()
    return evaluate(
        rule,
        trained.learner,
        theta,
        family,
        split=split,
        tasks=tasks,
        steps=settings.evaluation_steps if steps is None else steps,
        clip=settings.inner_clip,
        task_seed=settings.task_seed,
        batch=settings.evaluation_batch,
    )


def evaluate(
    rule: UpdateRule,
    learner: BaseLearner,
    theta: Tensor,
    family: TaskFamily,
    *,
    split: str,
    tasks: int,
    steps: int,
    clip: Clipping | None = None,
    task_seed: int = 0,
    batch: int = 100,
) -> Tensor:
    """Query scores of θ⁰ and a rule, without graphs: `[tasks, T + 1]`, on the CPU."""
    stream = TaskStream(family, split, task_seed, learner.device, learner.dtype)
    parts = [_scores(rule, learner, theta, task, steps, clip) for task in stream.batches(tasks, batch)]
    return torch.cat(parts)


@torch.no_grad()
def _scores(
    rule: UpdateRule,
    learner: BaseLearner,
    theta: Tensor,
    task: Task,
    steps: int,
    clip: Clipping | None,
) -> Tensor:
    path = trajectory(rule, learner, theta, task.support, steps=steps, clip=clip)
    return torch.stack([task_scores(learner, now, task.query) for now, _ in path], 1).cpu()


def _fresh(
    rule: UpdateRule, learner: BaseLearner, settings: Settings, generator: torch.Generator
) -> Trained:
    rule = copy.deepcopy(rule).to(learner.device)
    theta = learner.initial(generator).requires_grad_()
    learned = [parameter for parameter in rule.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam([theta, *learned], lr=settings.outer_lr)
    nothing = Snapshot(0, float("nan"), theta.detach().clone(), {}, {})
    trained = Trained(rule, learner, settings, theta, optimizer, generator, nothing)
    trained.best = trained.snapshot(float("nan"))
    return trained


def _fingerprint(rule: UpdateRule, learner: BaseLearner, settings: Settings) -> dict[str, str]:
    """What a checkpoint must agree in. When checkpoints are written has no part in it."""
    phi = {name: tuple(value.shape) for name, value in rule.state_dict().items()}
    plain = attrs.asdict(settings, filter=lambda a, _: a.name != "checkpoint_seconds")
    described = {f"settings.{name}": repr(value) for name, value in plain.items()}
    return {
        "rule": rule.label,
        "meta-parameters": repr(phi),
        "layout": repr(list(zip(learner.layout.names, learner.layout.shapes, strict=True))),
        **described,
    }


def _require_same(path: Path, theirs: dict[str, str], ours: dict[str, str]) -> None:
    for key in sorted({*theirs, *ours}):
        if theirs.get(key) != ours.get(key):
            raise UsageError(
                f"checkpoint {path}: it belongs to another run: {key} is {theirs.get(key)} there"
                f" and {ours.get(key)} here; move it away to start anew"
            )


@attrs.define(eq=False)
class _Training:
    """One call of `meta_train`."""

    trained: Trained
    train_tasks: TaskStream
    validation_tasks: TaskStream
    path: Path | None
    observers: list[Observer]
    saved_at: float = attrs.field(factory=time.monotonic)

    def run(self) -> None:
        trained, settings = self.trained, self.trained.settings
        self.tell("start", tasks=settings.tasks)
        while settings.tasks and trained.diverged is None:
            if self.validation_is_due():
                self.validate()
            if trained.position >= settings.tasks:
                break
            self.outer_step()
            self.checkpoint_when_due()
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
        trained, settings = self.trained, self.trained.settings
        tasks = self.validation_tasks.batches(settings.validation_tasks, settings.evaluation_batch)
        theta, steps = trained.theta.detach(), settings.evaluation_steps
        scores = [
            _scores(trained.rule, trained.learner, theta, task, steps, settings.inner_clip)[:, -1]
            for task in tasks
        ]
        score = float(torch.cat(scores).double().mean())
        trained.validations.append((trained.position, score))
        if _is_better(score, trained.best.score, trained.learner.higher_is_better):
            trained.best = trained.snapshot(score)
        self.save()
        self.tell("validation", score=score, best=trained.best.score)

    def outer_step(self) -> None:
        trained, settings = self.trained, self.trained.settings
        count = min(settings.meta_batch, settings.tasks - trained.position)
        task = self.train_tasks.take(trained.position, count)
        losses, grad, phi_grads = task_meta_gradient(
            trained.rule,
            trained.learner,
            trained.theta,
            task,
            steps=settings.steps,
            order=settings.order,
            clip=settings.inner_clip,
        )
        if settings.outer_loss == "sum":
            grad, phi_grads = grad * count, {k: g * count for k, g in phi_grads.items()}
        broken = self.what_is_not_finite(losses, {"the initialisation": grad, **phi_grads})
        if broken is not None:
            trained.diverged = broken
            self.tell("diverged", message=broken)
            return
        trained.theta.grad = grad
        for name, parameter in trained.rule.named_parameters():
            parameter.grad = phi_grads[name] if parameter.requires_grad else None
        self.clip()
        trained.optimizer.step()
        trained.position += count
        self.tell("step", loss=float(losses.mean()))

    def clip(self) -> None:
        """Bound the meta-gradient in place, as the settings say."""
        settings = self.trained.settings
        if settings.outer_clip is None:
            return
        clipped = [self.trained.theta]
        if settings.outer_clip_scope == "all":
            clipped += [p for p in self.trained.rule.parameters() if p.requires_grad]
        if settings.outer_clip.by == "value":
            torch.nn.utils.clip_grad_value_(clipped, settings.outer_clip.limit)
        else:
            torch.nn.utils.clip_grad_norm_(clipped, settings.outer_clip.limit)

    def what_is_not_finite(self, losses: Tensor, grads: Mapping[str, Tensor]) -> str | None:
        """One line on what went wrong, with outer step and task, or None."""
        trained, settings = self.trained, self.trained.settings
        step = -(-trained.position // settings.meta_batch) + 1
        where = f"outer step {step}"
        for index in (~torch.isfinite(losses)).nonzero().flatten().tolist():
            task = trained.position + index
            return f"{where}: the query loss of training task {task} is {float(losses[index])}"
        for name, grad in grads.items():
            if not torch.isfinite(grad).all():
                tasks = f"{trained.position} to {trained.position + len(losses) - 1}"
                return f"{where}: the meta-gradient for {name} is not finite at training task(s) {tasks}"
        return None

    def checkpoint_when_due(self) -> None:
        if time.monotonic() - self.saved_at >= self.trained.settings.checkpoint_seconds:
            self.save()

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
                # every event comes between two outer steps, so the state is whole here
                if self.path is not None:
                    self.trained.save(self.path)
                raise
            except Exception as error:  # a stranger's logger must not take the run down
                self.observers.remove(observer)
                warnings.warn(f"observer {observer!r} failed and is dropped: {error!r}", stacklevel=2)


def _is_better(score: float, best: float, higher_is_better: bool) -> bool:
    """Strictly better; a NaN is never better, and anything is better than a NaN."""
    if score != score:
        return False
    if best != best:
        return True
    return score > best if higher_is_better else score < best
