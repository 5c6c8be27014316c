"""What is tested of a run: the best state, what of it adapts, and the families that it is tested on."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping

import attrs
from torch import Tensor

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.learners.head import Head
from metalearn_benchmarks.learners.head_features import FeatureFamily, head_on_features
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.tasks.images.baselines import CLASSIFIERS, Classifier, pixel_scores
from metalearn_core import (
    BaseLearner,
    Processes,
    Task,
    TaskFamily,
    TaskStream,
    Trained,
    UpdateRule,
    evaluate,
    seeded_generator,
)


def tested_state(cell: Cell, trained: Trained) -> tuple[UpdateRule, Tensor]:
    """The rule, and θ⁰, of the best validation; of the authors' protocol, what their program tests.

    It restores all of MAML, of TURTLE the initialisation and not φ, and nothing of the LSTM.
    """
    rule, theta = trained.at_best()
    if cell.method.protocol == "authors" and cell.method.rule != "gradient-descent":
        rule = copy.deepcopy(trained.rule)
        if cell.method.rule == "lstm":
            theta = trained.theta.detach().clone()
    return rule, theta


def best_state(cell: Cell, parts: Components, trained: Trained) -> tuple[UpdateRule, Tensor]:
    """The rule, and θ⁰ of `parts.tested`: of the best validation, with a new head for classes of tasks.

    A new head is drawn from the seed, and the same one for each of its tasks.
    """
    rule, theta = tested_state(cell, trained)
    if not parts.has_new_head:
        return rule, theta
    fresh = parts.tested.initial(seeded_generator("head", cell.seed))
    body, head = parts.learner.layout.unflatten(theta), Head(parts.tested)
    parameters = {
        name: new if head.owns(name) else body[name]
        for name, new in parts.tested.layout.unflatten(fresh).items()
    }
    return rule, parts.tested.layout.flatten(parameters)


@attrs.frozen(eq=False)
class Evaluation:
    """What is tested.

    Args:
        learner, theta: what the rule adapts, and from where: all of θ⁰, or the head alone.
        families: by name, the one that was trained on first; as the learner takes them.
        classifier: what is fitted to each support set instead, of a method without θ.
    """

    rule: UpdateRule
    learner: BaseLearner
    theta: Tensor
    families: Mapping[str, TaskFamily]
    parts: Components
    classifier: Classifier | None = None

    @classmethod
    def of(cls, cell: Cell, parts: Components, trained: Trained) -> Evaluation:
        """Of a run that is trained."""
        rule, theta = best_state(cell, parts, trained)
        learner, families = parts.tested, {cell.family.name: parts.family, **parts.others}
        if cell.method.adapts == "head" and parts.has_new_head:
            families = {name: FeatureFamily(one, learner, theta) for name, one in families.items()}
            learner, theta = head_on_features(learner, theta)
        elif cell.method.adapts == "head":
            learner, theta = Head(learner).alone(theta)
        classifier = CLASSIFIERS[cell.method.rule] if cell.method.start == "pixels" else None
        return cls(rule, learner, theta, families, parts, classifier)

    def first_tasks(self, count: int) -> Task:
        """The first test tasks of the family that was trained on."""
        family = next(iter(self.families.values()))
        seed, learner = self.parts.settings.task_seed, self.learner
        return TaskStream(family, "test", seed, learner.device, learner.dtype).take(0, count)

    def scores(
        self, tasks: int, processes: Processes, watch: Callable[[int], None] = lambda done: None
    ) -> dict[str, Tensor]:
        """Of each family's first test tasks, after each inner step: `[tasks, T + 1]`.

        `watch`: told before each batch how many tasks are done, of all families.
        """
        found: dict[str, Tensor] = {}
        settings = self.parts.settings
        for name, family in self.families.items():
            tell = functools.partial(_from, len(found) * tasks, watch)
            if self.classifier is not None:
                found[name] = pixel_scores(self.classifier, family, "test", tasks, settings.task_seed, tell)
                continue
            found[name] = evaluate(
                self.rule, self.learner, self.theta, family, settings, split="test", tasks=tasks,
                watch=tell, processes=processes,
            )  # fmt: skip
        return found


def _from(before: int, watch: Callable[[int], None], done: int) -> None:
    watch(before + done)
