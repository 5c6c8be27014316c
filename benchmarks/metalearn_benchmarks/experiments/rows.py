"""The rows of an experiment in one setting: each method at every point of its axes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from metalearn_benchmarks.experiments.axes import Axes, Grid, folder_name, grid_points, require_folder_name
from metalearn_benchmarks.experiments.experiment import Experiment, Overrides
from metalearn_benchmarks.experiments.method import Method, Scale
from metalearn_core.errors import UsageError, unknown

UNDER_CONDITIONS = "no method of its own: trained under the conditions of "
"""What the source of a row of `--rule` begins with; the title of a method follows."""


def experiment_rows(
    experiment: Experiment, known: Mapping[str, Method], size: Scale, overrides: Overrides
) -> dict[str, Method]:
    """Expand the methods of an experiment into rows.

    Args:
        experiment: The experiment.
        known: The methods as they are in this setting, by name.
        size: The scale as it is in this setting.
        overrides: What the command line says over the experiment.

    Returns:
        The methods to run, each under its name and whatever was varied in it.

    Raises:
        UsageError: There are no rows, two rows are the same, or an axis does not apply to a method.
    """
    found: dict[str, Method] = {}
    labels: set[str] = set()
    same: dict[str, str] = {}
    axes = experiment.axes
    for label, method in itertools.chain(
        _method_rows(experiment, known, size, overrides), _rule_rows(experiment, known, size, overrides)
    ):
        require_folder_name("method", label)
        if label.casefold() in labels:
            raise UsageError(f"two rows would be called {label!r}; leave one out")
        labels.add(label.casefold())
        plain = attrs.asdict(attrs.evolve(method, title="", source=""))
        other = same.setdefault(json.dumps(plain, sort_keys=True, default=str), label)
        asked = overrides.steps or overrides.order or overrides.meta_gradient
        varied = axes.method_grid or axes.own_grids or asked
        if other != label and varied:
            raise UsageError(f"rows {other!r} and {label!r} are the same method; leave one out")
        found[label] = method
    if not found:
        raise UsageError("it has no methods; name them in its file, or with -m or --rule")
    if overrides.order is not None and all(method.start != "meta" for method in found.values()):
        raise UsageError(f"--order {overrides.order}: no method of these is meta-trained; leave it out")
    if overrides.meta_gradient is not None and all(method.start != "meta" for method in found.values()):
        name, _ = overrides.meta_gradient
        raise UsageError(f"--meta-gradient {name}: no method of these is meta-trained; leave it out")
    return found


def method_grids(experiment: Experiment, overrides: Overrides) -> list[Grid]:
    """Return the axes of each method and rule that is run."""
    methods = [experiment.axes.grid_of(name) for name in overrides.methods or experiment.methods]
    return methods + [experiment.axes.method_grid for _ in overrides.rules]


def select_rows(tables: dict[str, dict[str, Method]], only: Sequence[str]) -> dict[str, dict[str, Method]]:
    """Return the rows that `--only` asks for, METHOD or SETTING/METHOD with `*` as wildcard; or all."""
    if not only:
        return tables
    names = {(setting, row): (row, f"{setting}/{row}") for setting in tables for row in tables[setting]}
    chosen = set()
    for wanted in only:
        found = {place for place, called in names.items() if any(matches(wanted, name) for name in called)}
        if not found:
            raise unknown("row", wanted, (called[-1 if "/" in wanted else 0] for called in names.values()))
        chosen |= found
    return {
        setting: {row: method for row, method in table.items() if (setting, row) in chosen}
        for setting, table in tables.items()
    }


def matches(pattern: str, name: str) -> bool:
    """Return whether a name is what a pattern describes.

    The parts between the wildcards are looked for from left to right, each at the first place where it is.
    So the time grows with the lengths alone; a regular expression would try all places of all parts.

    Args:
        pattern: A name with any number of `*`.
        name: The name.

    Example:
        >>> matches("fo-*=5", "fo-maml,steps=5"), matches("fo-*", "maml")
        (True, False)
    """
    first, *parts = pattern.split("*")
    if not parts:
        return pattern == name
    *middle, last = parts
    if not name.startswith(first) or len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _method_rows(
    experiment: Experiment, known: Mapping[str, Method], size: Scale, overrides: Overrides
) -> Iterator[tuple[str, Method]]:
    for name in overrides.methods or experiment.methods:
        if name not in known:
            raise _unknown_method(name, known)
        method = known[name]
        _require_possible(name, method, experiment.axes)
        base = _resolved(method, experiment, size, overrides)
        grid = {**experiment.axes.grid_of(name), **_fixed(overrides, method)}
        for point in grid_points(grid):
            changed = {axis: value for axis, value in point.items() if _differs(base, axis, value)}
            yield folder_name(name, _in_order(changed)), _varied(base, point)


def _unknown_method(name: str, known: Mapping[str, Method]) -> UsageError:
    from metalearn_core import rules  # it takes time to load

    if name in rules():
        return UsageError(f"{name!r} is a rule and no method: say --rule {name}")
    return unknown("method", name, known)


def _rule_rows(
    experiment: Experiment, known: Mapping[str, Method], size: Scale, overrides: Overrides
) -> Iterator[tuple[str, Method]]:
    """Yield the rows of `--rule`, named after every option that was given."""
    beside = _gradient_descent_method(overrides.methods or experiment.methods, known)
    source = f"{UNDER_CONDITIONS}{beside.title}"
    for rule, options in overrides.rules:
        settings = {key: value for key, value in beside.settings.items() if key != "order"}
        method = Method(
            title=rule, source=source, start="meta", rule=rule, options=dict(options), settings=settings
        )
        base = _resolved(method, experiment, size, overrides)
        for point in grid_points({**experiment.axes.method_grid, **_fixed(overrides, method)}):
            yield folder_name(rule, {**options, **_in_order(point)}), _varied(base, point)


def _gradient_descent_method(names: Sequence[str], known: Mapping[str, Method]) -> Method:
    """Return the method whose clipping, T, batch size and outer learning rate a row of `--rule` has.

    It is the first meta-trained gradient descent among the rows, second order before first, or MAML.
    """
    beside = [
        known[name]
        for name in names
        if name in known and (known[name].start, known[name].rule) == ("meta", "gradient-descent")
    ]
    beside.sort(key=lambda method: method.settings.get("order") == "first")
    return beside[0] if beside else known["maml"]


def _fixed(overrides: Overrides, method: Method) -> Grid:
    """Return the axes that the command line replaces, each with its one value."""
    grid: Grid = {}
    if overrides.steps is not None and method.start != "pixels":
        grid["steps"] = [overrides.steps]
    if overrides.order is not None and method.start == "meta":
        grid["order"] = [overrides.order]
    if overrides.meta_gradient is not None and method.start == "meta":
        name, options = overrides.meta_gradient
        grid |= {"meta_gradient": [name]}
        grid |= {f"meta_gradient_options.{key}": [value] for key, value in options.items()}
    return grid


def _require_possible(name: str, method: Method, axes: Axes) -> None:
    """Raise UsageError for an axis that the method lacks, or that would change what the method is."""
    grid, own = axes.grid_of(name), axes.own_grids.get(name, {})
    for axis in ("order", "meta_gradient"):
        if grid.get(axis) and method.start != "meta":
            hint = "" if axis in own else f": say {axis} = [] under [axes.{name}]"
            raise UsageError(f"axis {axis!r}: method {name!r} is not meta-trained and has none{hint}")
    if grid.get("steps") and "steps" not in own and "steps" in method.settings:
        raise UsageError(
            f"axis 'steps': method {name!r} has a T of its own, {method.settings['steps']}: under"
            f" [axes.{name}], steps = [] keeps it and a list varies it"
        )


def _differs(method: Method, axis: str, value: Any) -> bool:
    """Return whether the method itself has another value than this one."""
    if axis == "steps" and method.settings.get("test_steps", value) != value:
        return True
    table, _, name = axis.partition(".")
    if axis == "meta_gradient":
        return bool(method.meta_gradient != value)
    tables = {"options": method.options, "meta_gradient_options": method.meta_gradient_options}
    return bool(tables.get(table, method.settings).get(name or table) != value)


def _in_order(changed: Mapping[str, Any]) -> dict[str, Any]:
    """Sort changes as names show them: options of the rule, T, the order, the outer gradient, settings."""
    kinds = ("options", "steps", "order", "meta_gradient", "meta_gradient_options", "settings")
    ranks = {kind: rank for rank, kind in enumerate(kinds)}
    return dict(sorted(changed.items(), key=lambda item: ranks[item[0].partition(".")[0]]))


def _varied(method: Method, point: Mapping[str, Any]) -> Method:
    """Return the method at a point of the axes. `steps` is T at training and at test."""
    settings, options = dict(method.settings), dict(method.options)
    outer = point.get("meta_gradient", method.meta_gradient)
    of_outer = dict(method.meta_gradient_options) if outer == method.meta_gradient else {}
    tables = {"options": options, "meta_gradient_options": of_outer}
    for axis, value in point.items():
        table, _, name = axis.partition(".")
        if axis != "meta_gradient":
            tables.get(table, settings)[name or table] = value
    if "steps" in point and "settings.test_steps" not in point:
        settings.pop("test_steps", None)
    return attrs.evolve(
        method, settings=settings, options=options, meta_gradient=outer, meta_gradient_options=of_outer
    )


def _resolved(method: Method, experiment: Experiment, size: Scale, overrides: Overrides) -> Method:
    """Return the method with the settings of the experiment, its scale and the command line."""
    settings = {**experiment.settings, **size.settings, **method.settings}
    for key in ("tasks", "engine"):
        value = getattr(overrides, key)
        if value is not None:
            settings[key] = value
    return attrs.evolve(method, settings=settings)
