"""A cell: one run of an experiment, with everything that its numbers depend on. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.experiments.method import Component, Method, _at_least_1
from metalearn_benchmarks.experiments.toml_tables import CONVERTER


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
