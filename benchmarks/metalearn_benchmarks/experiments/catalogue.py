"""The catalogue of methods and experiments, and the cells of an experiment.

Imports no torch: `metalearn_core.Settings` checks what a setting means. `docs/experiments.md` describes the
TOML format.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

import attrs

from metalearn_benchmarks.experiments.authors_protocol import under_authors_protocol
from metalearn_benchmarks.experiments.axes import folder_name, require_folder_name
from metalearn_benchmarks.experiments.cell import Cell
from metalearn_benchmarks.experiments.conditions import (
    apply_conditions,
    require_matching_settings,
    require_well_formed,
)
from metalearn_benchmarks.experiments.experiment import Experiment, Overrides
from metalearn_benchmarks.experiments.inheritance import Source, resolve_inheritance
from metalearn_benchmarks.experiments.limits import (
    MAX_RUNS,
    MAX_TEST_TASKS,
    count_points,
    require_count,
    require_rows,
    require_run_size,
    require_task_size,
)
from metalearn_benchmarks.experiments.method import Component, DefaultRun, Method, Scale
from metalearn_benchmarks.experiments.rows import experiment_rows, method_grids, select_rows
from metalearn_benchmarks.experiments.settings import Setting, experiment_settings
from metalearn_benchmarks.experiments.toml_tables import read_toml, require_valid_tables, structure_tables
from metalearn_core.errors import UsageError, unknown

__all__ = [
    "SCALES", "Cell", "Component", "Experiment", "Method", "Overrides", "Scale",
    "cells", "default_run", "experiments", "find_experiment", "methods",
]  # fmt: skip

SCALES = ("smoke", "small", "paper")
"""The scales at which an experiment can be run, from the smallest to the largest."""
PACKAGE = resources.files("metalearn_benchmarks.experiments")
"""The package that holds the shipped TOML files."""


def methods() -> dict[str, Method]:
    """Return the shipped methods, by name."""
    return dict(_shipped_methods())


@functools.cache
def _shipped_methods() -> dict[str, Method]:
    return {s.name: structure_tables(s.data, Method, s.where) for s in _shipped_sources("methods")}


def experiments() -> dict[str, Experiment]:
    """Return the shipped experiments, by name."""
    return dict(find_experiment(source.name) for source in _shipped_sources("shipped"))


def find_experiment(name: str) -> tuple[str, Experiment]:
    """Read an experiment and resolve everything that it inherits.

    Args:
        name: The name of a shipped experiment, or the path of a TOML file.

    Returns:
        The experiment's name and the experiment.

    Raises:
        UsageError: The experiment, or one that it extends, is not valid. The message names file and key.
    """
    source = _find_source(name, Path())
    data = resolve_inheritance(source, _find_source, {s.name: s.data for s in _shipped_sources("methods")})
    experiment: Experiment = structure_tables(data, Experiment, source.where)
    _require_known(experiment, source.where)
    return source.name, experiment


def _shipped_sources(folder: str) -> Iterator[Source]:
    for entry in sorted((PACKAGE / folder).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            data = read_toml(entry.read_text("utf-8"), entry.name)
            yield Source(entry.name.removesuffix(".toml"), entry.name, data)


def _find_source(name: str, folder: Path) -> Source:
    """Read the tables of an experiment: a file, relative to `folder`, or a shipped one."""
    if name.endswith(".toml"):
        path = folder / name
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"experiment file {path}: cannot be read ({error})") from error
        found = Source(path.stem, str(path), read_toml(text, str(path)), path.parent)
    else:
        shipped = {source.name: source for source in _shipped_sources("shipped")}
        if name not in shipped:
            raise unknown("experiment", name, shipped)
        found = shipped[name]
    require_valid_tables(found.checkable, Experiment, found.where)
    return found


def _require_known(experiment: Experiment, where: str) -> None:
    """Raise UsageError for a name that is unknown, given twice, or already taken."""
    known = {**_shipped_methods(), **experiment.method}
    for key, names in (("methods", experiment.methods), ("axes", experiment.axes.own_grids)):
        for name in names:
            if name not in known:
                raise UsageError(f"{where}: key {key!r}: {unknown('method', name, known)}")
            if list(names).count(name) > 1:
                raise UsageError(f"{where}: key {key!r}: method {name!r} is in it twice")
    for name in (*experiment.methods, *experiment.method):
        if (known[name].start, known[name].adapts) == ("meta", "head"):
            raise UsageError(
                f'{where}: method {name!r}: what is meta-trained adapts all parameters; adapts = "head" is'
                " for methods that start pretrained or at random"
            )
    for index, condition in enumerate(experiment.where):
        for name in condition.method:
            if name not in known:
                raise UsageError(f"{where}: key 'where.{index}.method': {unknown('method', name, known)}")
    try:
        require_well_formed(experiment.where)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    for scale in (*experiment.scale, *(name for one in experiment.where for name in one.scale)):
        if scale not in SCALES:
            raise UsageError(f"{where}: {unknown('scale', scale, SCALES)}")
    _require_known_default(experiment, where)


def _require_known_default(experiment: Experiment, where: str) -> None:
    """Raise UsageError where the default run has a scale or a method that the experiment lacks."""
    default = experiment.default
    if default != DefaultRun() and default.scale not in experiment.scale:
        raise UsageError(f"{where}: key 'default.scale': {unknown('scale', default.scale, experiment.scale)}")
    for name in default.methods:
        if name not in experiment.methods:
            raise UsageError(f"{where}: key 'default.methods': {unknown('method', name, experiment.methods)}")


def default_run(
    experiment: Experiment, scale: str | None, overrides: Overrides, every_method: bool = False
) -> tuple[str, Overrides]:
    """Return the scale and the overrides of a command that may leave the scale out.

    Args:
        experiment: The experiment.
        scale: The scale that the command names, or None.
        overrides: What the command line says over the experiment.
        every_method: Whether all methods of the experiment are asked for.

    Returns:
        `scale` and `overrides` as they are where there is a scale. Without one, those of the default run.

    Raises:
        UsageError: All methods are asked for, and some by name.
    """
    if every_method and overrides.methods:
        raise UsageError(
            f"--all runs every method, and -m {overrides.methods[0]} some: leave one of them out"
        )
    if scale is not None:
        return scale, overrides
    default = experiment.default
    methods = () if every_method or overrides.only else default.methods
    return default.scale, attrs.evolve(
        overrides,
        seeds=default.seeds if overrides.seeds is None else overrides.seeds,
        methods=overrides.methods or methods,
    )


def cells(name: str, experiment: Experiment, scale: str, overrides: Overrides) -> list[Cell]:
    """Expand an experiment into its cells: all settings and methods of a seed before the next seed.

    Args:
        name: The experiment's name, which names its folder of records.
        experiment: The experiment, with everything that it inherits.
        scale: One of `SCALES`.
        overrides: What the command line says over the experiment.

    Raises:
        UsageError: An axis cannot be varied, or two rows or settings would have the same name.
    """
    if scale not in experiment.scale:
        raise UsageError(f"experiment {name!r}: {unknown('scale', scale, experiment.scale)}")
    size = experiment.scale[scale]
    require_folder_name("experiment", name)
    try:
        require_rows(count_points(experiment.axes.setting_grid), method_grids(experiment, overrides))
        settings = experiment_settings(experiment)
        require_matching_settings(experiment.where, (one.family for one in settings.values()))
        tests = {name: _options_at_test(one.family, experiment) for name, one in settings.items()}
        tables = {name: _rows_of_setting(one, experiment, scale, overrides) for name, one in settings.items()}
        tables = select_rows(tables, overrides.only)
        seeds = size.seeds if overrides.seeds is None else overrides.seeds
        count = seeds * sum(map(len, tables.values()))
        require_count(count, MAX_RUNS, "runs", "ask for fewer seeds or rows")
    except UsageError as error:
        raise UsageError(f"experiment {name!r}: {error}") from error
    return [
        Cell(
            experiment=name,
            setting=setting,
            name=label,
            seed=seed,
            scale=scale,
            family=shared.family,
            learner=shared.learner,
            method=method,
            test_tasks=size.test_tasks,
            also_tested_on=_other_families(shared.family, experiment.also_tested_on, tests[setting]),
            test=dict(tests[setting]),
            device=overrides.device,
            threads=overrides.threads,
            processes=overrides.processes,
            prefix=f"{setting}: " if len(settings) > 1 else "",
            observe=tuple(overrides.observe),
        )
        for seed in range(seeds)
        for setting, shared in settings.items()
        for label, method in tables[setting].items()
    ]


def _options_at_test(family: Component, experiment: Experiment) -> dict[str, int]:
    """Return what test tasks of a setting have of their own, after a look at how large all tasks are."""
    own = experiment.test.of_family(family)
    for options in (family.options, {**family.options, **own}):
        require_task_size(family.name, options)
    return own


def _rows_of_setting(
    setting: Setting, experiment: Experiment, scale: str, overrides: Overrides
) -> dict[str, Method]:
    """Return the rows of a setting."""
    family, stream = setting.family, setting.task_seed
    known = {**_shipped_methods(), **experiment.method}
    here, size = apply_conditions(family, experiment.where, known, scale, experiment.scale[scale])
    require_count(size.test_tasks, MAX_TEST_TASKS, "test_tasks", "say fewer")
    found = experiment_rows(experiment, here, size, overrides)
    found = {label: experiment.test.of_method(method) for label, method in found.items()}
    for label, method in found.items():
        require_run_size(label, method.settings)
    if overrides.protocol == "authors":
        found = dict(_with_authors_protocol(label, method) for label, method in found.items())
    if stream is not None:
        found = {label: _on_stream(method, stream) for label, method in found.items()}
    return {label: under_authors_protocol(method, family) for label, method in found.items()}


def _on_stream(method: Method, task_seed: int) -> Method:
    """Return a method that draws its tasks from a stream."""
    return attrs.evolve(method, settings={**method.settings, "task_seed": task_seed})


def _with_authors_protocol(label: str, method: Method) -> tuple[str, Method]:
    """Return a row for `--protocol authors`. Only a meta-trained method changes its name."""
    if method.start != "meta":
        return label, method
    return folder_name(label, {"protocol": "authors"}), attrs.evolve(method, protocol="authors")


def _other_families(
    family: Component, names: Sequence[str], test: Mapping[str, int]
) -> tuple[Component, ...]:
    """Return the families that are tested on besides the one that is trained on.

    They have its options, with those of test tasks, but for `augment`, which concerns training images only.
    """
    options = {name: value for name, value in {**family.options, **test}.items() if name != "augment"}
    return tuple(Component(name, dict(options)) for name in names if name != family.name)
