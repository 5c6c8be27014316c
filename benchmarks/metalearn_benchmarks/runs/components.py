"""What a cell is made of, built from what is installed: this is where bad options show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch

from metalearn_benchmarks.experiments.catalogue import Cell, Component
from metalearn_benchmarks.learners.head import Head
from metalearn_benchmarks.tasks.images.baselines import CLASSIFIERS, Unchanged
from metalearn_core import (
    BaseLearner,
    Clipping,
    Registered,
    Settings,
    TaskFamily,
    TaskStream,
    UpdateRule,
    UsageError,
    base_learners,
    forked_rng,
    make_rule,
    rules,
    seeded_generator,
    task_families,
    unknown,
)

FITTED = ("ways", "channels", "size")
"""Options of a base-learner that it has from the family, by the same name, unless they are given."""


def settings_of(cell: Cell) -> Settings:
    """The cell's settings as the core takes them; UsageError names what it does not know."""
    given = dict(cell.method.settings)
    known = {field.name for field in attrs.fields(Settings)}
    for key in given:
        if key not in known:
            raise UsageError(f"method {cell.name!r}: {unknown('setting', key, known)}")
    try:
        for key in {"inner_clip", "outer_clip"} & set(given):
            if not isinstance(given[key], dict):
                raise TypeError(f'{key} must be a table {{ by = "value", limit = 10.0 }}, got {given[key]!r}')
            given[key] = Clipping(**given[key])
        return Settings(**given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"settings of method {cell.name!r}: {str(error).splitlines()[0]}") from error


def device_of(name: str) -> torch.device:
    """A device that this machine has; UsageError for another."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


@attrs.frozen(eq=False)
class Components:
    """What a cell is made of.

    Args:
        family: the tasks that are trained, validated and tested on.
        others: the families that are tested on too, by name.
        learner: the one that is trained; where tasks have a new head, one over all training classes.
        tested: the one that adapts to test tasks, elsewhere the same.
    """

    family: TaskFamily
    others: Mapping[str, TaskFamily]
    learner: BaseLearner
    tested: BaseLearner
    rule: UpdateRule
    generator: torch.Generator
    settings: Settings

    @classmethod
    def of(cls, cell: Cell) -> Components:
        """Build the parts. The seed decides θ⁰, the same for every method, and φ."""
        family = family_of(cell.family)
        tested = learner = _learner(cell, family)
        classes = getattr(family, "training_classes", None)
        if cell.method.start == "pretrained" and classes is not None:
            learner = _over_all_classes(cell, family, classes)
        return cls(
            family,
            {one.name: family_of(one) for one in cell.also_tested_on},
            learner,
            tested,
            *_drawn(cell, tested, cell.seed),
            settings_of(cell),
        )

    @property
    def has_new_head(self) -> bool:
        """Whether tasks have another head than the one that was trained."""
        return self.learner is not self.tested

    def with_seed(self, cell: Cell, seed: int) -> Components:
        """The parts of the same cell but for its seed."""
        rule, generator = _drawn(cell, self.tested, seed)
        return attrs.evolve(self, rule=rule, generator=generator)

    def tasks(self, split: str, family: TaskFamily | None = None) -> TaskStream:
        """The tasks of a split, of `family` or the own one, the same for every method and seed."""
        device, dtype = self.learner.device, self.learner.dtype
        return TaskStream(family or self.family, split, self.settings.task_seed, device, dtype)

    def data(self, cell: Cell) -> dict[str, str]:
        """The checksum of what each family draws from, of those that have one."""
        return _checksums({cell.family.name: self.family, **self.others})

    def require_tasks(self) -> None:
        """UsageError unless every family gives the tasks that are asked of it."""
        for split in ("train", "validation", "test"):
            self.tasks(split).take(0, 1)
        for other in self.others.values():
            self.tasks("test", other).take(0, 1)

    def require_fit(self, cell: Cell) -> None:
        """UsageError unless the base-learner takes test tasks of every family: now, not after training."""
        if cell.method.start == "pixels":
            return
        theta = self.tested.initial(seeded_generator("unused"))
        for name, family in {cell.family.name: self.family, **self.others}.items():
            task = self.tasks("test", family).take(0, 1)[0]
            try:
                with torch.no_grad():
                    self.tested.loss(theta, task.support)
            except Exception as error:  # of a stranger's module, anything
                kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
                why = " ".join(f"{kind}{error}".split())
                raise UsageError(
                    f"method {cell.name!r}: base-learner {cell.learner.name!r} cannot be tested on tasks of"
                    f" {name!r}: {why}"
                ) from error


def _checksums(families: Mapping[str, TaskFamily]) -> dict[str, str]:
    found = {name: getattr(one, "checksum", None) for name, one in families.items()}
    return {name: value for name, value in found.items() if value is not None}


def family_of(component: Component) -> TaskFamily:
    """The family of that name and those options."""
    family = task_families()[component.name](**component.options)
    if not isinstance(family, TaskFamily):
        raise UsageError(f"expected a TaskFamily from {component.name!r}, got a {type(family).__name__}")
    return family


def _learner(cell: Cell, family: TaskFamily, **over: Any) -> BaseLearner:
    options = {**learner_options(cell, family), **over}
    learner = base_learners()[cell.learner.name](**options)
    if not isinstance(learner, BaseLearner):
        raise UsageError(f"expected a BaseLearner from {cell.learner.name!r}, got a {type(learner).__name__}")
    return learner.to(device_of(cell.device))


def learner_options(cell: Cell, family: TaskFamily) -> dict[str, Any]:
    """What the experiment and the method say of the base-learner, and what it has from the family."""
    return {**_shared_options(cell, family), **cell.method.learner}


def _shared_options(cell: Cell, family: TaskFamily) -> dict[str, Any]:
    """Those of all methods of a setting."""
    known = base_learners()[cell.learner.name].options()
    fitted = {name: getattr(family, name) for name in FITTED if name in known and hasattr(family, name)}
    return {**fitted, **cell.learner.options}


def _over_all_classes(cell: Cell, family: TaskFamily, classes: int) -> BaseLearner:
    if "ways" not in base_learners()[cell.learner.name].options():
        raise UsageError(
            f"method {cell.name!r} pretrains a head over all {classes} training classes: base-learner"
            f" {cell.learner.name!r} must have the option `ways`"
        )
    return _learner(cell, family, ways=classes)


def _drawn(cell: Cell, learner: BaseLearner, seed: int) -> tuple[UpdateRule, torch.Generator]:
    """The rule with the φ of a seed, and the generator that θ⁰ comes from."""
    generator = seeded_generator("weights", seed)
    if cell.method.start == "pixels":
        if cell.method.rule not in CLASSIFIERS:
            raise unknown(f"classifier of pixels of method {cell.name!r}", cell.method.rule, CLASSIFIERS)
        return Unchanged(), generator
    adapted = learner.layout
    if cell.method.adapts == "head":
        adapted = Head(learner).alone(learner.initial(seeded_generator("unused")))[0].layout
    with forked_rng(generator):
        rule = make_rule(cell.method.rule, adapted, **cell.method.options)
    return rule.to(learner.device), generator


def resolved(cell: Cell) -> dict[str, Any]:
    """The cell as its `experiment.toml` says it: every setting and option, nothing left to a default, and the
    checksums of the data that it is to see.
    """
    plain = cell.as_toml()
    settings = attrs.asdict(settings_of(cell))
    plain["method"]["settings"] = {k: v for k, v in settings.items() if v is not None}
    entries = used(cell)
    if "rule" in entries:
        plain["method"]["options"] = {**_defaults(entries["rule"]), **plain["method"]["options"]}
    for part in (plain["family"], *plain["also_tested_on"]):
        part["options"] = {**_defaults(task_families()[part["name"]]), **part["options"]}
    families = {one.name: family_of(one) for one in (cell.family, *cell.also_tested_on)}
    shared = _shared_options(cell, families[cell.family.name])
    plain["learner"]["options"] = {**_defaults(entries["learner"]), **shared}
    data = _checksums(families)
    return {**plain, "data": data} if data else plain


def used(cell: Cell) -> dict[str, Registered]:
    """What is installed and makes the cell's parts."""
    entries = {
        "family": task_families()[cell.family.name],
        "learner": base_learners()[cell.learner.name],
    }
    if cell.method.start != "pixels":
        entries["rule"] = rules()[cell.method.rule]
    return entries


def _defaults(entry: Registered) -> dict[str, Any]:
    """The options that a factory leaves to their defaults, as far as TOML can say them."""
    given = {name: parameter.default for name, parameter in entry.options().items()}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    return {k: v for k, v in plain.items() if isinstance(v, bool | int | float | str | list)}
