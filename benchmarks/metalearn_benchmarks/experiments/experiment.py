"""The classes that an experiment's TOML is parsed into, and the overrides of the command line.

Imports no torch: `metalearn_core.Settings` checks what a setting means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from metalearn_benchmarks.experiments.axes import Axes
from metalearn_benchmarks.experiments.conditions import Condition
from metalearn_benchmarks.experiments.method import Component, DefaultRun, Method, Scale, TasksAtTest
from metalearn_benchmarks.experiments.toml_tables import CONVERTER

CONVERTER.register_structure_hook(Axes, Axes.read)
CONVERTER.register_structure_hook(TasksAtTest, TasksAtTest.read)


@attrs.frozen(kw_only=True)
class Experiment:
    """Methods on a family of tasks, and what is varied in both.

    Args:
        extends: The experiment that this one inherits from: a shipped name, or a TOML file.
        title: Its title in reports.
        reproduces: What it reproduces, such as a table of a paper.
        setting: Name of the folder between experiment and method. By default family, ways and shots.
        family: The family of tasks, with its options.
        learner: The base-learner, with its options.
        methods: Names of the methods to run.
        method: Methods of its own, or shipped ones that it changes, by name.
        axes: What is varied.
        also_tested_on: Families that are tested on as well, with the options of the family that is
            trained on. The family that is trained on itself adds nothing here.
        test: What test tasks have of their own.
        where: Changes that hold in some settings only.
        settings: Fields of `metalearn_core.Settings`, for all methods.
        scale: The sizes at which it can be run, by name.
        default: What is run of it where the command line names no scale.
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
    test: TasksAtTest = attrs.field(factory=TasksAtTest)
    where: list[Condition] = attrs.field(factory=list)
    settings: dict[str, Any] = attrs.field(factory=dict)
    scale: dict[str, Scale]
    default: DefaultRun = attrs.field(factory=DefaultRun)


@attrs.frozen(kw_only=True)
class Overrides:
    """What the command line says over an experiment.

    Args:
        methods: Names of methods to run in place of the experiment's.
        rules: Rules to meta-train, each with its options.
        only: Patterns of the rows to run.
        seeds: How many seeds to run.
        tasks: Training tasks of each run.
        steps: T.
        order: `"first"` or `"second"`.
        meta_gradient: Name of the outer gradient of all rows that are meta-trained, with its options.
        protocol: `"paper"` or `"authors"`.
        engine: The engine of the inner loop.
        device: Name of the torch device.
        threads: CPU threads of a process.
        processes: How many processes share each meta-batch.
        observe: Names of the observers that are asked for.
    """

    methods: Sequence[str] = ()
    rules: Sequence[tuple[str, Mapping[str, Any]]] = ()
    only: Sequence[str] = ()
    seeds: int | None = None
    tasks: int | None = None
    steps: int | None = None
    order: str | None = None
    meta_gradient: tuple[str, Mapping[str, Any]] | None = None
    protocol: str = "paper"
    engine: str | None = None
    device: str = "cpu"
    threads: int = 1
    processes: int = 1
    observe: Sequence[str] = ()
