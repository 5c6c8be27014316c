"""What an experiment, its methods and its runs are: the tables of TOML, and what they come to.

Imports no torch: what a setting means is for `metalearn_core.Settings` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from metalearn_benchmarks.experiments.axes import Axes
from metalearn_benchmarks.experiments.conditions import Condition
from metalearn_benchmarks.experiments.method import Component, Method, Scale
from metalearn_benchmarks.experiments.toml_tables import CONVERTER

CONVERTER.register_structure_hook(Axes, Axes.read)


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
