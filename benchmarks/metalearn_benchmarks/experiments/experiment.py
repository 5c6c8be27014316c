"""What an experiment, its methods and its runs are: the tables of TOML, and what they come to.

Imports no torch: what a setting means is for `metalearn_core.Settings` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from metalearn_benchmarks.experiments.axes import Axes
from metalearn_benchmarks.experiments.conditions import Condition
from metalearn_benchmarks.experiments.toml_tables import CONVERTER

CONVERTER.register_structure_hook(Axes, Axes.read)


def _at_least_1(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{attribute.name} must be an integer >= 1, got {value!r}")


@attrs.frozen
class Component:
    """Something installed, by name, with its options."""

    name: str
    options: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Method:
    """A row of a results table: how θ⁰ is obtained, and which rule adapts what of it.

    Args:
        start: θ⁰ is meta-trained, pretrained on the flat training data, or random. Where that data has
            classes, it is pretrained to tell all of them apart, and tasks start with a new head. `"pixels"`
            has no θ: `rule` names a classifier that is fitted to the support set's inputs as they are.
        adapts: all parameters, or the head (the last layer) alone.
        settings: fields of `metalearn_core.Settings`, over those of the experiment. Of a method that
            is not meta-trained, `steps` is T at test.
        minibatch: examples in a step of pretraining.
        learner: options of the base-learner, over those of the experiment.
        protocol: as the text has it, or as the authors' program does, see `program.py`.
    """

    title: str
    source: str = ""
    start: Literal["meta", "pretrained", "random", "pixels"]
    adapts: Literal["all", "head"] = "all"
    rule: str
    options: dict[str, Any] = attrs.field(factory=dict)
    settings: dict[str, Any] = attrs.field(factory=dict)
    minibatch: int = attrs.field(default=16, validator=_at_least_1)
    learner: dict[str, Any] = attrs.field(factory=dict)
    protocol: Literal["paper", "authors"] = "paper"

    @property
    def trains(self) -> bool:
        """Whether anything is trained before it is tested."""
        return self.start in ("meta", "pretrained")


@attrs.frozen(kw_only=True)
class Scale:
    """How large an experiment is run."""

    seeds: int = attrs.field(validator=_at_least_1)
    test_tasks: int = attrs.field(validator=_at_least_1)
    settings: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Experiment:
    """Methods on a family of tasks, and what is varied of both.

    Args:
        extends: the experiment that it inherits from, a shipped name or a TOML file.
        setting: name of the folder between experiment and method; by default family, ways and shots.
        also_tested_on: families whose test tasks are tested on, too, with the options of the family that
            is trained on; where it is that family, there is nothing more to test.
        where: what holds in some of the settings alone.
    """

    extends: str = ""
    title: str
    reproduces: str = ""
    setting: str = ""
    family: Component
    learner: Component
    methods: list[str] = attrs.field(factory=list)
    method: dict[str, Method] = attrs.field(factory=dict)
    axes: Axes = attrs.field(factory=Axes)
    also_tested_on: list[str] = attrs.field(factory=list)
    where: list[Condition] = attrs.field(factory=list)
    settings: dict[str, Any] = attrs.field(factory=dict)
    scale: dict[str, Scale]


@attrs.frozen(kw_only=True)
class Cell:
    """One run: a method, a seed, and everything that its numbers depend on.

    Args:
        also_tested_on: families that are tested on beside the one that is trained on.
        processes: those that share each of its meta-batches.
        prefix: what its label begins with, where an experiment has several settings; not recorded.
        observe: observers asked for by name, on which its numbers do not depend; not recorded.
    """

    experiment: str
    setting: str
    name: str
    seed: int
    scale: str
    family: Component
    learner: Component
    method: Method
    test_tasks: int = attrs.field(validator=_at_least_1)
    also_tested_on: tuple[Component, ...] = ()
    device: str = "cpu"
    threads: int = 1
    processes: int = attrs.field(default=1, validator=_at_least_1)
    prefix: str = attrs.field(default="", eq=False)
    observe: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its record lies, below DIR."""
        return Path(self.experiment, self.setting, self.name, str(self.seed))

    @property
    def label(self) -> str:
        """The run's name for people."""
        return f"{self.prefix}{self.name}, seed {self.seed}"

    @property
    def row(self) -> tuple[str, str]:
        """What the runs of one method in one setting share: their row of a table."""
        return self.setting, self.name

    def as_toml(self) -> dict[str, Any]:
        """The cell as plain data, nothing left to a default."""
        plain: dict[str, Any] = CONVERTER.unstructure(self)
        del plain["prefix"], plain["observe"]
        return plain


@attrs.frozen(kw_only=True)
class Overrides:
    """What the command line says over an experiment."""

    methods: Sequence[str] = ()
    rules: Sequence[tuple[str, Mapping[str, Any]]] = ()
    only: Sequence[str] = ()
    seeds: int | None = None
    tasks: int | None = None
    steps: int | None = None
    order: str | None = None
    protocol: str = "paper"
    engine: str | None = None
    device: str = "cpu"
    threads: int = 1
    processes: int = 1
    observe: Sequence[str] = ()
