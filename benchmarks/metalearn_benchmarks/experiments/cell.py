"""A cell: one run of an experiment, with everything that its numbers depend on. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.experiments.method import Component, Method, at_least_1
from metalearn_benchmarks.experiments.toml_tables import CONVERTER
from metalearn_benchmarks.host.folders import plain_name


@attrs.frozen(kw_only=True)
class Cell:
    """One run: a method and a seed in a setting, with everything that its numbers depend on.

    Args:
        experiment: Name of the experiment.
        setting: Name of the setting: family, ways and shots.
        name: Name of the row: the method, with whatever was varied in it.
        seed: Seed of θ⁰ and φ.
        scale: How large the experiment is run, see `catalogue.SCALES`.
        family: The family of tasks that is trained, validated and tested on.
        learner: The base-learner.
        method: How θ⁰ is obtained, and which rule adapts it.
        test_tasks: How many tasks of each family are tested on.
        also_tested_on: Families that are tested on besides the one that is trained on.
        test: Options that test tasks have of their own, over those of the family.
        device: Name of the torch device.
        threads: CPU threads of the process.
        processes: How many processes share each meta-batch.
        prefix: What the label begins with where an experiment has several settings. Not recorded.
        observe: Names of the observers that were asked for. The numbers do not depend on it. Not recorded.
    """

    experiment: str
    setting: str
    name: str
    seed: int
    scale: str
    family: Component
    learner: Component
    method: Method
    test_tasks: int = attrs.field(validator=at_least_1)
    also_tested_on: tuple[Component, ...] = ()
    test: dict[str, Any] = attrs.field(factory=dict)
    device: str = "cpu"
    threads: int = 1
    processes: int = attrs.field(default=1, validator=at_least_1)
    prefix: str = attrs.field(default="", eq=False)
    observe: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where a new record lies, relative to DIR."""
        return Path(*map(plain_name, (self.experiment, self.setting, self.name)), str(self.seed))

    def folder_in(self, directory: Path) -> Path:
        """Return where the record lies in DIR. A row that an earlier version began stays in its folder."""
        earlier = directory / self.experiment / self.setting / self.name
        return earlier / str(self.seed) if earlier.is_dir() else directory / self.folder

    @property
    def label(self) -> str:
        """The run's name in messages."""
        return f"{self.prefix}{self.name}, seed {self.seed}"

    @property
    def test_family(self) -> Component:
        """The family as test tasks have it."""
        return Component(self.family.name, {**self.family.options, **self.test})

    @property
    def row(self) -> tuple[str, str]:
        """Setting and name: the row of a table that all seeds of a method share."""
        return self.setting, self.name

    def as_toml(self) -> dict[str, Any]:
        """Return the cell as plain data, with defaults written out."""
        plain: dict[str, Any] = CONVERTER.unstructure(self)
        del plain["prefix"], plain["observe"]
        if not self.test:  # as in the records of earlier versions
            del plain["test"]
        return plain
