"""The hooks that a plugin may implement. This is the one file that imports `pluggy`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pluggy

GROUP = "metalearn"

Factories = Mapping[str, Callable[..., Any]]

META_GRADIENT = "meta-gradient"
"""The kind whose factories are used as they are: each is the function itself."""

hookspec = pluggy.HookspecMarker(GROUP)

hookimpl = pluggy.HookimplMarker(GROUP)
"""Marks a plugin's hooks: `@hookimpl def metalearn_update_rules(): return {"name": Rule}`."""


def plugin_manager() -> pluggy.PluginManager:
    """A manager that knows the hooks and has no plugin yet."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    return manager


class Hooks:
    """The hooks; each returns `{name: factory}`."""

    @hookspec
    def metalearn_update_rules(self) -> Factories:  # type: ignore[empty-body]
        """Update rules: `factory(layout, **options) -> UpdateRule`."""

    @hookspec
    def metalearn_task_families(self) -> Factories:  # type: ignore[empty-body]
        """Families of tasks: `factory(**options) -> TaskFamily`."""

    @hookspec
    def metalearn_base_learners(self) -> Factories:  # type: ignore[empty-body]
        """Base-learners: `factory(**options) -> BaseLearner`."""

    @hookspec
    def metalearn_meta_gradients(self) -> Factories:  # type: ignore[empty-body]
        """Outer gradients: functions that are called, and answer, as `metalearn_core.meta_gradient`.

        What else one takes by keyword are its options; one with a parameter `keys` draws random numbers.
        """

    @hookspec
    def metalearn_observers(self) -> Factories:  # type: ignore[empty-body]
        """Observers of runs: `factory(run) -> observer`, `run` a mapping that describes the run.

        A factory with `on_request = True` waits until it is asked for by name.
        """

    @hookspec
    def metalearn_map(self) -> Factories:  # type: ignore[empty-body]
        """Places on the map of what rules can express: `place(rule_map) -> None` calls `rule_map.place`."""


KINDS = {
    "metalearn_update_rules": "rule",
    "metalearn_task_families": "task family",
    "metalearn_base_learners": "base-learner",
    "metalearn_meta_gradients": META_GRADIENT,
    "metalearn_observers": "observer",
    "metalearn_map": "placement",
}
