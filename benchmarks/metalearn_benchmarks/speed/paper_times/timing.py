"""The seconds that a meta-learner takes for a training task and for a validation or test task."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from metalearn_benchmarks.experiments.catalogue import Cell, cells, find_experiment
from metalearn_benchmarks.experiments.experiment import Overrides
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.speed.paper_times.noise import NoiseImages
from metalearn_core import evaluate, meta_gradient

EXPERIMENT = "figure-3.4"
METHODS = ("fo-maml", "maml", "lstm", "lstm-enhanced", "fo-turtle", "turtle")
"""The meta-learners. The three transfer methods are not timed: no claim compares their times."""
ENGINE = "eager"
"""The engine of every method, since compiling each program for images takes longer than it is timed."""

Now = Callable[[], float]


def timed_cells() -> list[Cell]:
    """Return the cells of Figure 3.4 that are timed: each meta-learner with 1 and 5 shots, of one seed."""
    name, experiment = find_experiment(EXPERIMENT)
    found = cells(name, experiment, "paper", Overrides(seeds=1, engine=ENGINE))
    return [cell for cell in found if cell.name in METHODS]


@attrs.frozen(eq=False)
class TimedMethod:
    """A method on noise, ready to be timed again and again.

    Args:
        cell: The method, with its settings and the number of shots.
        family: The images.
        components: The rule, the base-learner and the settings.
        theta: θ⁰, `[n]`.
        now: The clock, in seconds.
    """

    cell: Cell
    family: NoiseImages
    components: Components
    theta: Tensor
    now: Now = time.perf_counter

    @classmethod
    def of(cls, cell: Cell) -> TimedMethod:
        """Make the method of a cell, on noise in the place of the cell's images."""
        options = cell.family.options
        family = NoiseImages(options["ways"], options["shots"], options["queries"])
        components = Components.build(cell, family)
        components.learner.check_first_batch = False  # made once in a run, and as dear as several tasks
        return cls(cell, family, components, components.learner.initial(components.generator))

    def training_seconds(self) -> float:
        """Return the seconds of the meta-gradient of one task."""
        one, settings = self.components, self.components.settings
        task = self.family.sample("train", 1, torch.Generator().manual_seed(0))
        start = self.now()
        meta_gradient(
            one.rule, one.learner, self.theta, task,
            steps=settings.steps, order=settings.order, clip=settings.inner_clip,
        )  # fmt: skip
        return self.now() - start

    def test_seconds(self) -> float:
        """Return the seconds of one validation or test task with the method's T.

        Such a task is T equal updates, and T + 1 equal scorings of its query set. It is timed with T = 0 and
        with T = 1. The difference, an update and a scoring, is taken T times.
        """
        none, one = (self._evaluation_seconds(steps) for steps in (0, 1))
        return none + self.components.settings.evaluation_steps * (one - none)

    def _evaluation_seconds(self, steps: int) -> float:
        settings = attrs.evolve(self.components.settings, test_steps=steps)
        start = self.now()
        evaluate(
            self.components.rule, self.components.learner, self.theta, self.family, settings,
            split="test", tasks=1,
        )  # fmt: skip
        return self.now() - start
