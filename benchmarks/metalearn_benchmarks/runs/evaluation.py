"""The evaluation of a run: which state is tested, what of it adapts, and on which families."""

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
    """Return the rule and θ⁰ that are tested.

    This is the state of the best validation. Under the authors' protocol it is what their program tests: for
    MAML all of the best state, for TURTLE its initialisation with the last φ, for the LSTM the last state.
    """
    rule, theta = trained.at_best()
    if cell.method.protocol == "authors" and cell.method.rule != "gradient-descent":
        rule = copy.deepcopy(trained.rule)
        if cell.method.rule == "lstm":
            theta = trained.theta.detach().clone()
    return rule, theta


def best_state(cell: Cell, components: Components, trained: Trained) -> tuple[UpdateRule, Tensor]:
    """Return the rule, and θ⁰ of `components.test_learner`, that are tested.

    Where tasks have a new head, it is drawn from the seed and the same for all tasks.

    Args:
        cell: The cell.
        components: Its components.
        trained: Its training, finished or not.

    Returns:
        The rule, and θ⁰: `[n]`.
    """
    rule, theta = tested_state(cell, trained)
    if not components.has_new_head:
        return rule, theta
    fresh = components.test_learner.initial(seeded_generator("head", cell.seed))
    body, head = components.learner.layout.unflatten(theta), Head(components.test_learner)
    parameters = {
        name: new if head.owns(name) else body[name]
        for name, new in components.test_learner.layout.unflatten(fresh).items()
    }
    return rule, components.test_learner.layout.flatten(parameters)


@attrs.frozen(eq=False)
class Evaluation:
    """What is tested of a run.

    Args:
        rule: The update rule.
        learner: The base-learner, or its head alone where only the head adapts.
        theta: Where the adaptation starts: θ⁰ of `learner`, `[n]`.
        families: The families, by name, as `learner` takes them. The one that was trained on comes first.
        components: The components of the cell.
        classifier: For a method without θ, what is fitted to each support set instead.
    """

    rule: UpdateRule
    learner: BaseLearner
    theta: Tensor
    families: Mapping[str, TaskFamily]
    components: Components
    classifier: Classifier | None = None

    @classmethod
    def build(cls, cell: Cell, components: Components, trained: Trained) -> Evaluation:
        """Make the evaluation of a trained cell."""
        rule, theta = best_state(cell, components, trained)
        learner, families = (
            components.test_learner,
            {cell.family.name: components.test_family, **components.other_families},
        )
        if cell.method.adapts == "head" and components.has_new_head:
            families = {name: FeatureFamily(one, learner, theta) for name, one in families.items()}
            learner, theta = head_on_features(learner, theta)
        elif cell.method.adapts == "head":
            learner, theta = Head(learner).freeze_body(theta)
        classifier = CLASSIFIERS[cell.method.rule] if cell.method.start == "pixels" else None
        return cls(rule, learner, theta, families, components, classifier)

    def first_tasks(self, count: int) -> Task:
        """Return the first test tasks of the family that was trained on, stacked."""
        family = next(iter(self.families.values()))
        seed, learner = self.components.settings.task_seed, self.learner
        return TaskStream(family, "test", seed, learner.device, learner.dtype).take(0, count)

    def scores(
        self, tasks: int, processes: Processes, on_progress: Callable[[int], None] = lambda done: None
    ) -> dict[str, Tensor]:
        """Score the first test tasks of each family.

        Args:
            tasks: How many tasks of each family.
            processes: The processes that share the tasks.
            on_progress: Called before each batch with the number of tasks that are done, over all families.

        Returns:
            By family, the score of each task after each inner step: `[tasks, T + 1]`.
        """
        found: dict[str, Tensor] = {}
        settings = self.components.settings
        for name, family in self.families.items():
            report = functools.partial(_report_offset, len(found) * tasks, on_progress)
            if self.classifier is not None:
                found[name] = pixel_scores(self.classifier, family, "test", tasks, settings.task_seed, report)
                continue
            found[name] = evaluate(
                self.rule, self.learner, self.theta, family, settings, split="test", tasks=tasks,
                watch=report, processes=processes,
            )  # fmt: skip
        return found


def _report_offset(before: int, on_progress: Callable[[int], None], done: int) -> None:
    on_progress(before + done)
