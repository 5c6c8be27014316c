"""The settings of an experiment: what all methods share, at every point of its axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from metalearn_benchmarks.experiments.axes import folder_name, grid_points, require_folder_name
from metalearn_benchmarks.experiments.experiment import Experiment
from metalearn_benchmarks.experiments.method import Component
from metalearn_core.errors import UsageError


@attrs.frozen
class Setting:
    """What all methods of a table share.

    Args:
        family: The family of tasks.
        learner: The base-learner.
        task_seed: The stream that tasks are drawn from. None leaves it to `[settings]`.
    """

    family: Component
    learner: Component
    task_seed: int | None = None


def experiment_settings(experiment: Experiment) -> dict[str, Setting]:
    """Return the settings of an experiment by their names.

    Raises:
        UsageError: Two settings would have the same name, or a family lacks the option of an axis.
    """
    found: dict[str, Setting] = {}
    for point in grid_points(experiment.axes.setting_grid):
        if experiment.setting and point:
            raise UsageError(
                f"setting {experiment.setting!r} is one name for all that axis {next(iter(point))!r} makes;"
                ' leave it out, or say "" where it is inherited'
            )
        family, learner = _components(experiment, point)
        setting = experiment.setting or _setting_name(family, experiment, point)
        require_folder_name("setting", setting)
        if setting in found:
            raise UsageError(f"two settings would be called {setting!r}; leave one out of the axes")
        found[setting] = Setting(family, learner, point.get("task_seed"))
    return found


def _components(experiment: Experiment, point: Mapping[str, Any]) -> tuple[Component, Component]:
    """Return family and base-learner at a point of the axes."""
    named = point.get("family", {})
    named = {"name": named} if isinstance(named, str) else named
    made = {
        "family": Component(
            named.get("name", experiment.family.name),
            {**experiment.family.options, **named.get("options", {})},
        ),
        "learner": Component(experiment.learner.name, dict(experiment.learner.options)),
    }
    for axis, value in point.items():
        table, _, option = axis.partition(".")
        if axis in ("shots", "ways"):
            table, option = "family", _option_of(axis, made["family"])
        if option:
            made[table].options[option] = value
    return made["family"], made["learner"]


def _option_of(axis: str, family: Component) -> str:
    """Return the option that an axis sets: the one of its name, or `support` for the shots."""
    option = "support" if axis == "shots" and "shots" not in family.options else axis
    if option not in family.options:
        raise UsageError(
            f"axis {axis!r}: [family] options say none of family {family.name!r}; say it there, or name the"
            ' option that it is: "family.NAME"'
        )
    return option


def _setting_name(family: Component, experiment: Experiment, point: Mapping[str, Any]) -> str:
    """Return `family-N-way-K-shot`, as far as the family has them, with what else the axes changed."""
    shots = family.options.get("shots", family.options.get("support"))
    ways = family.options.get("ways")
    parts = [family.name, *([f"{ways}-way"] if ways else []), *([f"{shots}-shot"] if shots else [])]
    own = {"family": experiment.family.options, "learner": experiment.learner.options}
    changed = {
        axis: value
        for axis, value in point.items()
        if "." in axis and own[axis.partition(".")[0]].get(axis.partition(".")[2]) != value
    }
    if point.get("task_seed", stream := experiment.settings.get("task_seed", 0)) != stream:
        changed["task_seed"] = point["task_seed"]
    return folder_name("-".join(parts), {**changed, **experiment.test.as_changes()})
