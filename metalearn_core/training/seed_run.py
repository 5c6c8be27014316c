"""One seed of a meta-training: its checkpoint, its observers, its validations, and how it diverged."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import WriteError
from metalearn_core.inner_loop import trajectory
from metalearn_core.task import Task
from metalearn_core.training.events import Event, Observer
from metalearn_core.training.trained import Trained


@attrs.define(eq=False)
class SeedRun:
    """One seed, the path of its checkpoint, and its observers.

    Args:
        trained: its state.
        path: where its checkpoint lies, or None.
        observers: called with every event; one that fails is dropped.
        idle: whether it only keeps its place in a program.
        averages: of the gradients, as Adam has them, before a step whose gradient is asked for.
    """

    trained: Trained
    path: Path | None
    observers: list[Observer]
    idle: bool = False
    averages: list[Tensor] = attrs.field(factory=list)

    @property
    def asks_gradient(self) -> bool:
        """Whether an observer asks for the norm of each gradient, by its attribute `gradient_norm`."""
        return any(getattr(observer, "gradient_norm", False) for observer in self.observers)

    def before_step(self) -> None:
        """Keep what `gradient_norm` needs, if it is asked for."""
        self.averages = self._adams_averages() if self.asks_gradient else []

    def gradient_norm(self) -> dict[str, float]:
        """The norm of the gradient that Adam took in the last step, if it was asked for.

        A step moves Adam's average a tenth of the way to the gradient. So the gradient is read off the
        average, and no engine has to give it.
        """
        if not self.averages:
            return {}
        moved = zip(self.averages, self._adams_averages(), strict=True)
        norms = [torch.linalg.vector_norm(before + 10 * (after - before)) for before, after in moved]
        return {"gradient_norm": float(torch.stack(norms).norm())}

    @torch.no_grad()
    def _adams_averages(self) -> list[Tensor]:
        """A copy of Adam's average of the gradients of each tensor that is learned, 0 before the first."""
        adam = self.trained.optimizer
        learned = [x for group in adam.param_groups for x in group["params"] if x.requires_grad]
        return [
            adam.state[x]["exp_avg"].clone() if adam.state.get(x) else torch.zeros_like(x) for x in learned
        ]

    def notify(self, kind: str, **values: float | str) -> None:
        """Call every observer with an event of this kind at the present position."""
        event = Event(kind, self.trained.position, values)
        for observer in tuple(self.observers):
            try:
                observer(event)
            except WriteError:  # the checkpoint could not be written either
                raise
            except Exception as error:  # a stranger's logger must not take the run down
                self.observers.remove(observer)
                warnings.warn(f"observer {observer!r} failed and is dropped: {error!r}", stacklevel=2)


@torch.no_grad()
def describe_divergence(trained: Trained, task: Task, loss: float) -> str:
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


def is_validation_due(trained: Trained) -> bool:
    """At 0, each time a multiple of the interval is reached or passed, and at the end."""
    if not trained.validations:
        return True
    last, interval = trained.validations[-1][0], trained.settings.validation_interval
    passed = trained.position // interval > last // interval
    return passed or (trained.position == trained.settings.tasks and last != trained.position)


def is_better(score: float, best: float, higher_is_better: bool) -> bool:
    """Strictly better; a NaN is never better, and anything else is better than a NaN."""
    if math.isnan(score) or math.isnan(best):
        return math.isnan(best) and not math.isnan(score)
    return score > best if higher_is_better else score < best
