"""What is installed, by name: rules and their places on the map, task families, base-learners, observers."""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import attrs
import pluggy

from metalearn_core.errors import UsageError, unknown
from metalearn_core.learner import ParameterLayout
from metalearn_core.rule import UpdateRule

GROUP = "metalearn"
LOAD_PLUGINS = "METALEARN_LOAD_PLUGINS"
"""The environment variable that names the plugins to load, `a,b`; empty: none; not set: all."""
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
    "metalearn_observers": "observer",
    "metalearn_map": "placement",
}


@attrs.frozen
class Registered:
    """A factory, where it came from, and its options; calling it checks the options first."""

    kind: str
    name: str
    factory: Callable[..., Any]
    plugin: str
    distribution: str

    def options(self) -> dict[str, inspect.Parameter]:
        """The keyword options that the factory takes, by name; `**` one that takes any."""
        return {
            f"**{name}" if p.kind is p.VAR_KEYWORD else name: p
            for name, p in inspect.signature(self.factory).parameters.items()
            if name != "layout" and p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)
        }

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Make one. Raises UsageError for an unknown option, a refused value, and a factory that fails."""
        try:
            known = self.options()
            for option in options:
                if option not in known and not any(name.startswith("**") for name in known):
                    raise unknown("option", option, known)
            return self.factory(*args, **options)
        except (Exception, SystemExit) as error:
            # a TypeError or a ValueError refuses a value; whatever else it is, it is the plugin's mistake
            refused = isinstance(error, TypeError | ValueError)
            broken = "" if refused else f"mend or upgrade {self.distribution}: {type(error).__name__}: "
            raise UsageError(f"{self.kind} {self.name!r}: {broken}{' '.join(str(error).split())}") from error


@attrs.frozen
class PluginReport:
    """One plugin: what it is, what is wrong with it, if anything, and whether it was left out on request."""

    name: str
    distribution: str
    version: str
    source: str
    error: str | None = None
    left_out: bool = False


class Catalogue(dict[str, Registered]):
    """Factories by name; asking for a name that is not there is a UsageError that says why."""

    def __init__(self, kind: str, reports: Sequence[PluginReport] = ()) -> None:
        super().__init__()
        self.kind, self.reports = kind, reports
        # of each name that several claim, the distributions and plugins that do
        self.contested: dict[str, set[tuple[str, str]]] = {}

    def __missing__(self, name: str) -> Registered:
        if name in self.contested:
            raise UsageError(self.clash(name))
        away = ", ".join(report.name for report in self.reports if report.error or report.left_out)
        note = f"; not loaded, or not all of it: plugin {away}" if away else ""
        raise UsageError(f"{unknown(self.kind, name, self)}{note}")

    def clash(self, name: str) -> str:
        """Who claims a name that has two owners."""
        owners = " and ".join(f"{dist} (plugin {plugin})" for dist, plugin in sorted(self.contested[name]))
        return f"{self.kind} {name!r} is claimed by {owners}; uninstall or rename one"

    def add(self, entry: Registered) -> None:
        """Add a factory; a name with two owners belongs to neither."""
        if entry.name in self or entry.name in self.contested:
            owners = self.contested.setdefault(entry.name, set())
            owners |= {(e.distribution, e.plugin) for e in (self.pop(entry.name, entry), entry)}
        else:
            self[entry.name] = entry


class Registry:
    """The plugins of one program.

    Args:
        discover: False finds no plugin by itself; `register` adds one.
        only: the plugins to load, by their own name or their distribution's; None: all that are installed.
    """

    def __init__(self, *, discover: bool = True, only: Collection[str] | None = None) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(Hooks)
        self._reports: list[PluginReport] = []
        self.catalogues = {hook: Catalogue(kind, self._reports) for hook, kind in KINDS.items()}
        if discover:
            self._discover(only)

    @property
    def reports(self) -> list[PluginReport]:
        """What became of each plugin; a name that several claim is an error of every one of them."""
        clashes = [(c.clash(n), who) for c in self.catalogues.values() for n, who in c.contested.items()]
        told = (
            (report, [clash for clash, who in clashes if (report.distribution, report.name) in who])
            for report in self._reports
        )
        return [attrs.evolve(r, error="; ".join(filter(None, [r.error, *more])) or None) for r, more in told]

    def _discover(self, only: Collection[str] | None) -> None:
        # pluggy's own loader lets one broken plugin end the host and skips a second owner in silence
        points = {
            (point.name, point.value): (point, distribution)
            for distribution in importlib.metadata.distributions()
            for point in distribution.entry_points.select(group=GROUP)
        }
        installed = {n for point, owner in points.values() for n in (point.name, owner.metadata["Name"])}
        for name in only or ():
            if name not in installed:
                raise unknown("plugin to load", name, installed)
        for _, (point, distribution) in sorted(points.items(), key=lambda item: item[0]):
            owner = distribution.metadata["Name"], distribution.version
            if only is not None and not {point.name, owner[0]} & set(only):
                self._reports.append(PluginReport(point.name, *owner, point.value, left_out=True))
                continue
            try:
                plugin = _answer(point.load, "failed to import")
            except UsageError as error:
                self._reports.append(PluginReport(point.name, *owner, point.value, str(error)))
            else:
                self.register(plugin, point.name, *owner)

    def register(self, plugin: object, name: str, distribution: str = "(by hand)", version: str = "") -> None:
        """Take a plugin's hooks in; what is wrong with it is kept in `reports`, never raised."""
        reason = None
        try:
            found = self._collect(plugin, name, distribution)
            for hook, entry in found:
                self.catalogues[hook].add(entry)
            for _, entry in found:
                _require_fit(entry, entry.factory)
        except Exception as error:  # also what pluggy meets in the plugin's own objects
            reason = " ".join(str(error).split())
        source = getattr(plugin, "__file__", None) or repr(plugin)
        self._reports.append(PluginReport(name, distribution, version, source, reason))

    def _collect(self, plugin: object, name: str, distribution: str) -> list[tuple[str, Registered]]:
        """Every factory of a plugin; raises where a hook is misspelt or gives no mapping of callables."""
        if (first := self._manager.get_name(plugin)) or self._manager.has_plugin(f"{distribution}: {name}"):
            raise UsageError(f"registered already, as {first or name!r}; remove one of the two entry points")
        self._manager.register(plugin, f"{distribution}: {name}")
        hooks = [caller.name for caller in self._manager.get_hookcallers(plugin) or []]
        if not hooks:
            raise UsageError("it implements no hook; mark one with metalearn_core.hookimpl")
        found = []
        for hook in hooks:
            if hook not in KINDS:
                raise unknown("hook", hook, KINDS)
            mapping = _answer(getattr(plugin, hook), f"{hook} failed")
            if not isinstance(mapping, Mapping) or not all(
                isinstance(key, str) and key.strip() and callable(made) for key, made in mapping.items()
            ):
                raise UsageError(f"{hook} must return a mapping of names to callables, got {mapping!r:.200}")
            found += [(hook, Registered(KINDS[hook], k, f, name, distribution)) for k, f in mapping.items()]
        return found

    def make_rule(self, name: str, layout: ParameterLayout, **options: Any) -> UpdateRule:
        """An update rule by name. Raises UsageError for one that is unknown, of another API, or fails."""
        entry = self.catalogues["metalearn_update_rules"][name]
        _require_fit(entry, entry.factory)
        rule: UpdateRule = entry(layout, **options)
        _require_fit(entry, type(rule))
        if "_parameters" not in vars(rule):
            raise UsageError(f"rule {name!r}: __init__ of {type(rule).__name__} must call super().__init__()")
        return rule


def _require_fit(entry: Registered, made: object) -> None:
    """UsageError for a class of a rule that cannot be used with this core: what to change or upgrade."""
    if entry.kind != "rule" or not isinstance(made, type):
        return
    if not issubclass(made, UpdateRule):
        raise UsageError(f"rule {entry.name!r}: expected an UpdateRule, got a {made.__name__}; make it one")
    ours, theirs, told = UpdateRule.api_version, made.api_version, f"rule {entry.name!r} is written for API"
    if theirs != ours:
        older = "metalearn-core" if isinstance(theirs, int) and theirs > ours else entry.distribution
        raise UsageError(f"{told} {theirs}, metalearn-core has API {ours}: upgrade {older}")


def _answer(plugins_code: Callable[[], Any], failed: str) -> Any:
    """What a plugin answers, its prints sent to standard error; UsageError for whatever it raises."""
    try:
        with redirect_stdout(sys.stderr):
            return plugins_code()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UsageError(f"{failed}: {type(error).__name__}: {' '.join(str(error).split())}") from error


@functools.cache
def default_registry() -> Registry:
    """The registry of what is installed, or of what METALEARN_LOAD_PLUGINS names; made at first use."""
    wanted = os.environ.get(LOAD_PLUGINS)
    return Registry(only=None if wanted is None else [n for n in map(str.strip, wanted.split(",")) if n])


def make_rule(name: str, layout: ParameterLayout, **options: Any) -> UpdateRule:
    """An installed update rule by name, with its options.

    Raises UsageError for an unknown name or option, and for a value that the rule refuses.
    """
    return default_registry().make_rule(name, layout, **options)


def rules() -> Catalogue:
    """The installed update rules, by name."""
    return default_registry().catalogues["metalearn_update_rules"]


def task_families() -> Catalogue:
    """The installed task families, by name."""
    return default_registry().catalogues["metalearn_task_families"]


def base_learners() -> Catalogue:
    """The installed base-learners, by name."""
    return default_registry().catalogues["metalearn_base_learners"]


def observers() -> Catalogue:
    """The installed observers of runs, by name."""
    return default_registry().catalogues["metalearn_observers"]


def placements() -> Catalogue:
    """The installed placements on the map of rules, by name."""
    return default_registry().catalogues["metalearn_map"]
