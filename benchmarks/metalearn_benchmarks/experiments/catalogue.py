"""Methods and experiments: what TOML says, checked, and resolved into the cells to run.

Imports no torch: what a setting means is for `metalearn_core.Settings` to say. docs/experiments.md has the
format.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import attrs

from metalearn_benchmarks.experiments.authors_protocol import under_authors_protocol
from metalearn_benchmarks.experiments.axes import folder_name, require_folder_name
from metalearn_benchmarks.experiments.cell import Cell
from metalearn_benchmarks.experiments.conditions import apply_conditions, require_met, require_sensible
from metalearn_benchmarks.experiments.experiment import Experiment, Overrides
from metalearn_benchmarks.experiments.inheritance import Source, inherited
from metalearn_benchmarks.experiments.method import Component, Method, Scale
from metalearn_benchmarks.experiments.rows import rows
from metalearn_benchmarks.experiments.settings import settings as places
from metalearn_benchmarks.experiments.toml_tables import read_toml, require_valid, structured
from metalearn_core.errors import UsageError, unknown

__all__ = [
    "SCALES", "Cell", "Component", "Experiment", "Method", "Overrides", "Scale",
    "cells", "experiments", "find_experiment", "methods",
]  # fmt: skip

SCALES = ("smoke", "small", "paper")
PACKAGE = resources.files("metalearn_benchmarks.experiments")


def methods() -> dict[str, Method]:
    """The shipped methods, by name."""
    return dict(_shipped_methods())


@functools.cache
def _shipped_methods() -> dict[str, Method]:
    return {s.name: structured(s.data, Method, s.where) for s in _shipped("methods")}


def experiments() -> dict[str, Experiment]:
    """The shipped experiments, by name."""
    return dict(find_experiment(source.name) for source in _shipped("shipped"))


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
        shipped = {source.name: source for source in _shipped("shipped")}
        if name not in shipped:
            raise unknown("experiment", name, shipped)
        found = shipped[name]
    require_valid(found.checkable, Experiment, found.where)
    return found


def _require_known(experiment: Experiment, where: str) -> None:
    """UsageError for names that are not there, there twice, or somebody else's."""
    known = {**_shipped_methods(), **experiment.method}
    for key, names in (("methods", experiment.methods), ("axes", experiment.axes.of_one)):
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
        require_sensible(experiment.where)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    for scale in (*experiment.scale, *(name for one in experiment.where for name in one.scale)):
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
        settings = places(experiment)
        require_met(experiment.where, (family for family, _ in settings.values()))
        tables = {
            setting: _rows_at(family, experiment, scale, overrides)
            for setting, (family, _) in settings.items()
        }
        tables = _chosen(tables, overrides.only)
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
            also_tested_on=_others(family, experiment.also_tested_on),
            device=overrides.device,
            threads=overrides.threads,
            processes=overrides.processes,
            prefix=f"{setting}: " if len(settings) > 1 else "",
            observe=tuple(overrides.observe),
        )
        for seed in range(size.seeds if overrides.seeds is None else overrides.seeds)
        for setting, (family, learner) in settings.items()
        for label, method in tables[setting].items()
    ]


def _chosen(tables: dict[str, dict[str, Method]], only: Sequence[str]) -> dict[str, dict[str, Method]]:
    """The rows asked for, METHOD or SETTING/METHOD with `*` for anything; all where none is."""
    if not only:
        return tables
    names = {(setting, row): (row, f"{setting}/{row}") for setting in tables for row in tables[setting]}
    chosen = set()
    for wanted in only:
        # names have brackets in them, which other wildcards would take for their own
        pattern = re.compile(".*".join(map(re.escape, wanted.split("*"))), re.DOTALL)
        found = {place for place, called in names.items() if any(map(pattern.fullmatch, called))}
        if not found:
            raise unknown("row", wanted, (called[-1 if "/" in wanted else 0] for called in names.values()))
        chosen |= found
    return {
        setting: {row: method for row, method in table.items() if (setting, row) in chosen}
        for setting, table in tables.items()
    }


def _rows_at(
    family: Component, experiment: Experiment, scale: str, overrides: Overrides
) -> dict[str, Method]:
    """The rows of one setting."""
    known = {**_shipped_methods(), **experiment.method}
    here, size = apply_conditions(family, experiment.where, known, scale, experiment.scale[scale])
    found = rows(experiment, here, size, overrides)
    if overrides.protocol == "authors":
        found = dict(_under_protocol(label, method) for label, method in found.items())
    return {label: under_authors_protocol(method, family) for label, method in found.items()}


def _under_protocol(label: str, method: Method) -> tuple[str, Method]:
    """A row as `--protocol authors` has it; what is not meta-trained is the same in both."""
    if method.start != "meta":
        return label, method
    return folder_name(label, {"protocol": "authors"}), attrs.evolve(method, protocol="authors")


def _others(family: Component, names: Sequence[str]) -> tuple[Component, ...]:
    """The families to test on beside the one that is trained on, with its options, but for `augment`: that is
    of training images.
    """
    options = {name: value for name, value in family.options.items() if name != "augment"}
    return tuple(Component(name, dict(options)) for name in names if name != family.name)
