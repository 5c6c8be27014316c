"""What is installed: update rules, task families, base-learners and observers, by name."""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pluggy

from metalearn_core.errors import UsageError, unknown
from metalearn_core.learner import BaseLearner, ParameterLayout
from metalearn_core.rule import UpdateRule
from metalearn_core.task import TaskFamily
from metalearn_core.train import Observer

GROUP = "metalearn"
Factories = Mapping[str, Callable[..., Any]]

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
"""Marks a plugin's hooks: `@hookimpl def metalearn_update_rules(): return {"name": Rule}`."""


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
    def metalearn_observers(self) -> Factories:  # type: ignore[empty-body]
        """Observers of runs: `factory(run) -> observer`, `run` a mapping that describes the run."""


KINDS = {
    "metalearn_update_rules": "rule",
    "metalearn_task_families": "task family",
    "metalearn_base_learners": "base-learner",
    "metalearn_observers": "observer",
}


@attrs.frozen
class Registered:
    """A factory, where it came from, and its options; calling it checks the options first."""

    kind: str
    name: str
    factory: Callable[..., Any]
    plugin: str
    distribution: str

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The keyword options that the factory takes, by name."""
        parameters = inspect.signature(self.factory).parameters
        taken = {"layout", "self"}
        return {
            name: p
            for name, p in parameters.items()
            if name not in taken and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        }

    @property
    def takes_any_option(self) -> bool:
        """Whether the factory has `**options` and checks them itself."""
        parameters = inspect.signature(self.factory).parameters.values()
        return any(p.kind is p.VAR_KEYWORD for p in parameters)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Make one. Raises UsageError for an unknown option or a value that the factory refuses."""
        for option in options:
            if option not in self.options and not self.takes_any_option:
                raise unknown(f"option of {self.kind} {self.name!r}", option, self.options)
        try:
            return self.factory(*args, **options)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.kind} {self.name!r}: {error}") from error


@attrs.frozen
class PluginReport:
    """One plugin: what it is, and why it did not load, if it did not."""

    name: str
    distribution: str
    version: str
    source: str
    error: str | None = None


class Registry:
    """The plugins of one program. `discover=False` finds none by itself; `register` adds one."""

    def __init__(self, *, discover: bool = True) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(Hooks)
        self._found: dict[str, dict[str, Registered]] = {hook: {} for hook in KINDS}
        self._contested: dict[str, dict[str, list[Registered]]] = {hook: {} for hook in KINDS}
        self.reports: list[PluginReport] = []
        if discover:
            self._discover()

    def _discover(self) -> None:
        # pluggy's own loader lets one broken plugin end the host and skips a second owner in silence
        points = {
            (point.name, point.value): (point, distribution)
            for distribution in importlib.metadata.distributions()
            for point in distribution.entry_points
            if point.group == GROUP
        }
        for _, (point, distribution) in sorted(points.items()):
            name = distribution.metadata["Name"]
            try:
                plugin = point.load()
            except BaseException as error:  # whatever it is, it is the plugin's
                if isinstance(error, KeyboardInterrupt):
                    raise
                reason = f"failed to import: {type(error).__name__}: {error}"
                report = PluginReport(point.name, name, distribution.version, point.value, reason)
                self.reports.append(report)
            else:
                self.register(plugin, point.name, name, distribution.version)

    def register(
        self, plugin: object, name: str, distribution: str = "(registered by hand)", version: str = ""
    ) -> None:
        """Take a plugin's hooks in; what is wrong with it is kept in `reports`, never raised."""
        source = getattr(plugin, "__file__", None) or repr(plugin)
        try:
            found = self._collect(plugin, name, distribution)
        except Exception as error:
            reason = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
            self._forget(plugin)
            self.reports.append(PluginReport(name, distribution, version, source, reason))
            return
        clashes = [clash for hook, entry in found if (clash := self._add(hook, entry))]
        self.reports.append(
            PluginReport(name, distribution, version, source, "; ".join(clashes) or None)
        )

    def _collect(
        self, plugin: object, name: str, distribution: str
    ) -> list[tuple[str, Registered]]:
        """Every factory of a plugin; raises where a hook is misspelt or gives no mapping of callables."""
        if self._manager.has_plugin(name):
            raise UsageError(f"another plugin is called {name!r} already; rename the entry point")
        self._manager.register(plugin, name)
        callers = self._manager.get_hookcallers(plugin) or []
        for caller in callers:
            if not caller.has_spec():
                raise unknown("hook", caller.name, KINDS)
        if not callers:
            raise UsageError("it implements no hook; mark one with metalearn_core.hookimpl")
        found = []
        for caller in callers:
            mapping = getattr(plugin, caller.name)()
            if not isinstance(mapping, Mapping):
                raise UsageError(
                    f"{caller.name} must return a mapping of name to factory,"
                    f" got {type(mapping).__name__}"
                )
            for key, factory in mapping.items():
                if not callable(factory):
                    raise UsageError(
                        f"{caller.name}: the factory of {key!r} is not callable, it is {factory!r}"
                    )
                entry = Registered(KINDS[caller.name], key, factory, name, distribution)
                found.append((caller.name, entry))
        return found

    def _forget(self, plugin: object) -> None:
        if self._manager.is_registered(plugin):
            self._manager.unregister(plugin)

    def _add(self, hook: str, entry: Registered) -> str | None:
        """Add a factory; a name with two owners belongs to neither, and the clash is returned."""
        contested, found = self._contested[hook], self._found[hook]
        if entry.name in found:
            contested[entry.name] = [found.pop(entry.name)]
        if entry.name in contested:
            contested[entry.name].append(entry)
            return self._clash(hook, entry.name)
        found[entry.name] = entry
        return None

    def _clash(self, hook: str, name: str) -> str:
        owners = " and ".join(sorted({entry.distribution for entry in self._contested[hook][name]}))
        return f"{KINDS[hook]} {name!r} is claimed by {owners}; uninstall or rename one"

    def of(self, hook: str) -> Mapping[str, Registered]:
        """The factories of one hook, by name."""
        return dict(sorted(self._found[hook].items()))

    def get(self, hook: str, name: str) -> Registered:
        """One factory; raises UsageError for a name that is unknown or has two owners."""
        if name in self._contested[hook]:
            raise UsageError(self._clash(hook, name))
        if name not in self._found[hook]:
            raise unknown(KINDS[hook], name, self._found[hook])
        return self._found[hook][name]

    def make_rule(self, name: str, layout: ParameterLayout, **options: Any) -> UpdateRule:
        """An update rule by name. Raises UsageError for what is unknown or of a newer API."""
        rule = self.get("metalearn_update_rules", name)(layout, **options)
        if not isinstance(rule, UpdateRule):
            raise UsageError(f"rule {name!r}: its factory made a {type(rule).__name__}, no UpdateRule")
        if rule.api_version != UpdateRule.api_version:
            raise UsageError(
                f"rule {name!r}: written for API {rule.api_version}, this is API"
                f" {UpdateRule.api_version}; install a matching version of the plugin or of metalearn-core"
            )
        return rule


@functools.cache
def default_registry() -> Registry:
    """The registry of everything installed; made at first use."""
    return Registry()


def make_rule(name: str, layout: ParameterLayout, **options: Any) -> UpdateRule:
    """An installed update rule by name, with its options.

    Raises UsageError for an unknown name or option, and for a value that the rule refuses.
    """
    return default_registry().make_rule(name, layout, **options)


def rules() -> Mapping[str, Registered]:
    """The installed update rules."""
    return default_registry().of("metalearn_update_rules")


def task_families() -> Mapping[str, Registered]:
    """The installed task families."""
    return default_registry().of("metalearn_task_families")


def base_learners() -> Mapping[str, Registered]:
    """The installed base-learners."""
    return default_registry().of("metalearn_base_learners")


def observers() -> Mapping[str, Registered]:
    """The installed observers of runs."""
    return default_registry().of("metalearn_observers")


def make_task_family(name: str, **options: Any) -> TaskFamily:
    """An installed task family by name."""
    family: TaskFamily = default_registry().get("metalearn_task_families", name)(**options)
    return family


def make_base_learner(name: str, **options: Any) -> BaseLearner:
    """An installed base-learner by name."""
    learner: BaseLearner = default_registry().get("metalearn_base_learners", name)(**options)
    return learner


def make_observer(name: str, run: Mapping[str, Any]) -> Observer:
    """An installed observer by name, for the run that is described."""
    observer: Observer = default_registry().get("metalearn_observers", name)(run)
    return observer
