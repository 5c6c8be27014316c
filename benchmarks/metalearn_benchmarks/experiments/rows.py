"""The rows of an experiment in one setting: each method at every point of its axes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from metalearn_benchmarks.experiments.axes import Axes, Grid, folder_name, grid_points, require_folder_name
from metalearn_benchmarks.experiments.experiment import Experiment, Overrides
from metalearn_benchmarks.experiments.method import Method, Scale
from metalearn_core.errors import UsageError, unknown


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
    same: dict[str, str] = {}
    axes = experiment.axes
    for label, method in itertools.chain(
        _method_rows(experiment, known, size, overrides), _rule_rows(experiment, size, overrides)
    ):
        require_folder_name("method", label)
        if label.casefold() in map(str.casefold, found):
            raise UsageError(f"two rows would be called {label!r}; leave one out")
        plain = attrs.asdict(attrs.evolve(method, title="", source=""))
        other = same.setdefault(json.dumps(plain, sort_keys=True, default=str), label)
        varied = axes.method_grid or axes.own_grids or overrides.steps or overrides.order
        if other != label and varied:
            raise UsageError(f"rows {other!r} and {label!r} are the same method; leave one out")
        found[label] = method
    if not found:
        raise UsageError("it has no methods; name them in its file, or with -m or --rule")
    if overrides.order is not None and all(method.start != "meta" for method in found.values()):
        raise UsageError(f"--order {overrides.order}: no method of these is meta-trained; leave it out")
    return found


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


def _rule_rows(experiment: Experiment, size: Scale, overrides: Overrides) -> Iterator[tuple[str, Method]]:
    """Yield the rows of `--rule`, named after every option that was given."""
    for rule, options in overrides.rules:
        method = Method(title=rule, start="meta", rule=rule, options=dict(options))
        base = _resolved(method, experiment, size, overrides)
        for point in grid_points({**experiment.axes.method_grid, **_fixed(overrides, method)}):
            yield folder_name(rule, {**options, **_in_order(point)}), _varied(base, point)


def _fixed(overrides: Overrides, method: Method) -> Grid:
    """Return the axes that the command line replaces, each with its one value."""
    grid: Grid = {}
    if overrides.steps is not None and method.start != "pixels":
        grid["steps"] = [overrides.steps]
    if overrides.order is not None and method.start == "meta":
        grid["order"] = [overrides.order]
    return grid


def _require_possible(name: str, method: Method, axes: Axes) -> None:
    """Raise UsageError for an axis that the method lacks, or that would change what the method is."""
    grid, own = axes.grid_of(name), axes.own_grids.get(name, {})
    if grid.get("order") and method.start != "meta":
        hint = "" if "order" in own else f": say order = [] under [axes.{name}]"
        raise UsageError(f"axis 'order': method {name!r} is not meta-trained and has none{hint}")
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
    own = method.options if table == "options" else method.settings
    return bool(own.get(name or table) != value)


def _in_order(changed: Mapping[str, Any]) -> dict[str, Any]:
    """Sort changes as names show them: options of the rule, T, the order, other settings."""
    ranks = {"options": 0, "steps": 1, "order": 2, "settings": 3}
    return dict(sorted(changed.items(), key=lambda item: ranks[item[0].partition(".")[0]]))


def _varied(method: Method, point: Mapping[str, Any]) -> Method:
    """Return the method at a point of the axes. `steps` is T at training and at test."""
    settings, options = dict(method.settings), dict(method.options)
    for axis, value in point.items():
        table, _, name = axis.partition(".")
        (options if table == "options" else settings)[name or table] = value
    if "steps" in point and "settings.test_steps" not in point:
        settings.pop("test_steps", None)
    return attrs.evolve(method, settings=settings, options=options)


def _resolved(method: Method, experiment: Experiment, size: Scale, overrides: Overrides) -> Method:
    """Return the method with the settings of the experiment, its scale and the command line."""
    settings = {**experiment.settings, **size.settings, **method.settings}
    for key in ("tasks", "engine"):
        value = getattr(overrides, key)
        if value is not None:
            settings[key] = value
    return attrs.evolve(method, settings=settings)
