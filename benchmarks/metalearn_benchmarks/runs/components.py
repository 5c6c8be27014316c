"""The components of a cell, made from what is installed. Invalid options are reported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.learners.head import Head
from metalearn_benchmarks.runs.resolution import core_settings, data_checksums, learner_options, make_family
from metalearn_benchmarks.tasks.images.baselines import CLASSIFIERS, IdentityRule
from metalearn_core import (
    BaseLearner,
    Settings,
    TaskFamily,
    TaskStream,
    UpdateRule,
    UsageError,
    base_learners,
    forked_rng,
    make_meta_gradient,
    make_rule,
    seeded_generator,
    unknown,
)


def usable_device(name: str) -> torch.device:
    """Return the torch device of that name.

    Raises:
        UsageError: This machine has no such device, or it does not compute.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has shapes and no numbers
    except Exception as error:  # torch has no common one, and loads modules by the name of the device
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"device {name!r} cannot be used here: {reason}") from error
    return device


@attrs.frozen(eq=False)
class Components:
    """The components of a cell.

    Args:
        family: The tasks that are trained and validated on.
        test_family: The tasks of the same family that are tested on; mostly the same object.
        other_families: The families that are tested on as well, by name.
        learner: The base-learner that is trained. Where tasks have a new head, its head is over all training
            classes.
        test_learner: The base-learner that adapts to test tasks; the same one where tasks have no new head.
        rule: The update rule with its φ.
        generator: Random numbers for θ⁰.
        settings: The settings of the outer and inner loop.
        meta_gradient: The outer gradient.
    """

    family: TaskFamily
    test_family: TaskFamily
    other_families: Mapping[str, TaskFamily]
    learner: BaseLearner
    test_learner: BaseLearner
    rule: UpdateRule
    generator: torch.Generator
    settings: Settings
    meta_gradient: Callable[..., Any]

    @classmethod
    def build(cls, cell: Cell, family: TaskFamily | None = None) -> Components:
        """Make the components of a cell.

        The seed decides θ⁰, which is the same for every method, and φ.

        Args:
            cell: The cell.
            family: Tasks to take in the place of the cell's own; None makes the cell's own.

        Raises:
            UsageError: Something is not installed, or an option is invalid.
        """
        family = family or make_family(cell.family)
        test_learner = learner = _make_learner(cell, family)
        classes = getattr(family, "training_classes", None)
        if cell.method.start == "pretrained" and classes is not None:
            learner = _over_all_classes(cell, family, classes)
        return cls(
            family,
            make_family(cell.test_family) if cell.test else family,
            {one.name: make_family(one) for one in cell.also_tested_on},
            learner,
            test_learner,
            *_make_rule(cell, test_learner, cell.seed),
            core_settings(cell),
            make_meta_gradient(cell.method.meta_gradient, **cell.method.meta_gradient_options),
        )

    @property
    def has_new_head(self) -> bool:
        """Whether tasks have another head than the one that was trained."""
        return self.learner is not self.test_learner

    def with_seed(self, cell: Cell, seed: int) -> Components:
        """Return the components of the same cell with another seed."""
        rule, generator = _make_rule(cell, self.test_learner, seed)
        return attrs.evolve(self, rule=rule, generator=generator)

    def tasks(self, split: str, family: TaskFamily | None = None) -> TaskStream:
        """Return the stream of tasks of a split. It is the same for every method and seed.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            family: The family. None stands for the one that is trained on.
        """
        device, dtype = self.learner.device, self.learner.dtype
        return TaskStream(family or self.family, split, self.settings.task_seed, device, dtype)

    def checksums(self, cell: Cell) -> dict[str, str]:
        """Return the checksum of each family's data, for the families that have one."""
        return data_checksums({cell.family.name: self.family, **self.other_families})

    def require_tasks(self) -> None:
        """Raise UsageError unless every family can make the tasks that it is asked for."""
        for split in ("train", "validation"):
            self.tasks(split).take(0, 1)
        self.tasks("test", self.test_family).take(0, 1)
        for other in self.other_families.values():
            self.tasks("test", other).take(0, 1)

    def require_fit(self, cell: Cell) -> None:
        """Check before the training that the base-learner can take test tasks of every family.

        Raises:
            UsageError: It cannot. The message has the reason.
        """
        if cell.method.start == "pixels":
            return
        theta = self.test_learner.initial(seeded_generator("unused"))
        for name, family in {cell.family.name: self.test_family, **self.other_families}.items():
            task = self.tasks("test", family).take(0, 1)[0]
            try:
                with torch.no_grad():
                    self.test_learner.loss(theta, task.support)
            except Exception as error:  # of a stranger's module, anything
                kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
                why = " ".join(f"{kind}{error}".split())
                raise UsageError(
                    f"method {cell.name!r}: base-learner {cell.learner.name!r} cannot be tested on tasks of"
                    f" {name!r}: {why}"
                ) from error


def _make_learner(cell: Cell, family: TaskFamily, **over: Any) -> BaseLearner:
    options = {**learner_options(cell, family), **over}
    learner = base_learners()[cell.learner.name](**options)
    if not isinstance(learner, BaseLearner):
        raise UsageError(f"expected a BaseLearner from {cell.learner.name!r}, got a {type(learner).__name__}")
    return learner.to(usable_device(cell.device))


def _over_all_classes(cell: Cell, family: TaskFamily, classes: int) -> BaseLearner:
    if "ways" not in base_learners()[cell.learner.name].options():
        raise UsageError(
            f"method {cell.name!r} pretrains a head over all {classes} training classes: base-learner"
            f" {cell.learner.name!r} must have the option `ways`"
        )
    return _make_learner(cell, family, ways=classes)


def _make_rule(cell: Cell, learner: BaseLearner, seed: int) -> tuple[UpdateRule, torch.Generator]:
    """Return the rule with the φ of a seed, and the generator that θ⁰ is drawn from."""
    generator = seeded_generator("weights", seed)
    if cell.method.start == "pixels":
        if cell.method.rule not in CLASSIFIERS:
            raise unknown(f"classifier of pixels of method {cell.name!r}", cell.method.rule, CLASSIFIERS)
        return IdentityRule(), generator
    adapted = learner.layout
    if cell.method.adapts == "head":
        adapted = Head(learner).freeze_body(learner.initial(seeded_generator("unused")))[0].layout
    with forked_rng(generator):
        rule = make_rule(cell.method.rule, adapted, **cell.method.options)
    return rule.to(learner.device), generator
