"""Methods and experiments: what TOML says, checked, and resolved into the cells to run.

Imports no torch: what a setting means is for `metalearn_core.Settings` to say. docs/experiments.md has the
format.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from metalearn_benchmarks.axes import require_folder_name
from metalearn_benchmarks.experiment import Cell, Component, Experiment, Method, Overrides, Scale
from metalearn_benchmarks.inheritance import Source, inherited
from metalearn_benchmarks.places import places
from metalearn_benchmarks.rows import rows
from metalearn_benchmarks.toml_tables import read_toml, require_valid, structured
from metalearn_core.errors import UsageError, unknown

__all__ = [
    "SCALES", "Cell", "Component", "Experiment", "Method", "Overrides", "Scale",
    "cells", "experiments", "find_experiment", "methods",
]  # fmt: skip

SCALES = ("smoke", "small", "paper")
PACKAGE = resources.files("metalearn_benchmarks")


def methods() -> dict[str, Method]:
    """The shipped methods, by name."""
    return dict(_shipped_methods())


@functools.cache
def _shipped_methods() -> dict[str, Method]:
    return {s.name: structured(s.data, Method, s.where) for s in _shipped("methods")}


def experiments() -> dict[str, Experiment]:
    """The shipped experiments, by name."""
    return dict(find_experiment(source.name) for source in _shipped("experiments"))


def find_experiment(name: str) -> tuple[str, Experiment]:
    """A shipped experiment by name, or one in a TOML file: its name and itself, with all that it inherits.

    Raises:
        UsageError: for what it or what it extends says wrongly, by file and key.
    """
    source = _source(name, Path())
    data = inherited(source, _source, {s.name: s.data for s in _shipped("methods")})
    experiment: Experiment = structured(data, Experiment, source.where)
    _require_known(experiment, source.where)
    return source.name, experiment


def _shipped(folder: str) -> Iterator[Source]:
    for entry in sorted((PACKAGE / folder).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            data = read_toml(entry.read_text("utf-8"), entry.name)
            yield Source(entry.name.removesuffix(".toml"), entry.name, data)


def _source(name: str, folder: Path) -> Source:
    """An experiment as it is written: a file, seen from `folder`, or a shipped one."""
    if name.endswith(".toml"):
        path = folder / name
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"experiment file {path}: cannot be read ({error})") from error
        found = Source(path.stem, str(path), read_toml(text, str(path)), path.parent)
    else:
        shipped = {source.name: source for source in _shipped("experiments")}
        if name not in shipped:
            raise unknown("experiment", name, shipped)
        found = shipped[name]
    require_valid(found.checkable, Experiment, found.where)
    return found


def _require_known(experiment: Experiment, where: str) -> None:
    """UsageError for names that are not there, there twice, or somebody else's."""
    shipped = _shipped_methods()
    known = {**shipped, **experiment.method}
    for own in experiment.method:
        if own in shipped:
            raise UsageError(
                f"{where}: method {own!r} is a shipped one; give the experiment's own another name"
            )
    for key, names in (("methods", experiment.methods), ("axes", experiment.axes.of_one)):
        for name in names:
            if name not in known:
                raise UsageError(f"{where}: key {key!r}: {unknown('method', name, known)}")
            if list(names).count(name) > 1:
                raise UsageError(f"{where}: key {key!r}: method {name!r} is in it twice")
    for scale in experiment.scale:
        if scale not in SCALES:
            raise UsageError(f"{where}: {unknown('scale', scale, SCALES)}")


def cells(name: str, experiment: Experiment, scale: str, overrides: Overrides) -> list[Cell]:
    """Every run of an experiment: all settings and methods of a seed before the next seed.

    Raises:
        UsageError: for what cannot be varied, or would have another's name.
    """
    if scale not in experiment.scale:
        raise UsageError(f"experiment {name!r}: {unknown('scale', scale, experiment.scale)}")
    size = experiment.scale[scale]
    require_folder_name("experiment", name)
    try:
        known = {**_shipped_methods(), **experiment.method}
        settings, methods = places(experiment), rows(experiment, known, size, overrides)
    except UsageError as error:
        raise UsageError(f"experiment {name!r}: {error}") from error
    return [
        Cell(
            experiment=name,
            setting=setting,
            name=label,
            seed=seed,
            scale=scale,
            family=family,
            learner=learner,
            method=method,
            test_tasks=size.test_tasks,
            device=overrides.device,
            threads=overrides.threads,
            processes=overrides.processes,
            prefix=f"{setting}: " if len(settings) > 1 else "",
            observe=tuple(overrides.observe),
        )
        for seed in range(size.seeds if overrides.seeds is None else overrides.seeds)
        for setting, (family, learner) in settings.items()
        for label, method in methods.items()
    ]
