"""What a registry holds: factories by name, and a report on each plugin."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from typing import Any

import attrs

from metalearn_core.errors import UsageError, unknown
from metalearn_core.outer_gradient import ARGUMENTS
from metalearn_core.registration.hooks import META_GRADIENT
from metalearn_core.rule import UpdateRule


@attrs.frozen
class Registered:
    """A factory, where it came from, and its options. A call checks the options first.

    Args:
        kind: what it makes, such as `"rule"` or `"task family"`.
        name: the name that it is registered under.
        factory: makes one.
        plugin: the name of the plugin that registered it.
        distribution: the distribution of that plugin.

    Example:
        >>> from metalearn_core import ParameterLayout, rules
        >>> registered = rules()["gradient-descent"]
        >>> registered.kind, "inner_lr" in registered.options()
        ('rule', True)
        >>> registered(ParameterLayout(("weight",), ((3,),)), inner_rate=0.1)
        Traceback (most recent call last):
        metalearn_core.errors.UsageError: rule 'gradient-descent': ...
    """

    kind: str
    name: str
    factory: Callable[..., Any]
    plugin: str
    distribution: str

    @property
    def _given(self) -> Sequence[str]:
        """What whoever calls it gives, and no user."""
        return ARGUMENTS if self.kind == META_GRADIENT else ("layout",)

    def options(self) -> dict[str, inspect.Parameter]:
        """The keyword options that the factory takes, by name; `**` one that takes any."""
        return {
            f"**{name}" if p.kind is p.VAR_KEYWORD else name: p
            for name, p in inspect.signature(self.factory).parameters.items()
            if name not in self._given and p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)
        }

    def require_options(self, names: Iterable[str]) -> None:
        """UsageError for an option that it does not take."""
        known = self.options()
        for name in names:
            if name not in known and not any(taken.startswith("**") for taken in known):
                raise unknown("option", name, known)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Make one. Raises UsageError for an unknown option, a refused value, and a factory that fails."""
        try:
            self.require_options(name for name in options if name not in self._given)
            return self.factory(*args, **options)
        except (Exception, SystemExit) as error:
            # a TypeError or a ValueError refuses a value; whatever else it is, it is the plugin's mistake
            refused = isinstance(error, TypeError | ValueError)
            broken = "" if refused else f"mend or upgrade {self.distribution}: {type(error).__name__}: "
            raise UsageError(f"{self.kind} {self.name!r}: {broken}{' '.join(str(error).split())}") from error


@attrs.frozen
class PluginReport:
    """What became of one plugin.

    Args:
        name: the name of its entry point.
        distribution: the distribution that it belongs to.
        version: the version of that distribution.
        source: the file or the object that it was loaded from.
        error: what is wrong with it, or None.
        left_out: whether it was not loaded because nobody asked for it.

    Example:
        >>> from metalearn_core import Registry
        >>> registry = Registry(discover=False)
        >>> registry.register(object(), "empty")
        >>> report = registry.reports[0]
        >>> report.name, report.error
        ('empty', 'it implements no hook; mark one with metalearn_core.hookimpl')
    """

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


def require_compatible_rule(entry: Registered, made: object) -> None:
    """UsageError for a class of a rule that cannot be used with this core: what to change or upgrade."""
    if entry.kind != "rule" or not isinstance(made, type):
        return
    if not issubclass(made, UpdateRule):
        raise UsageError(f"rule {entry.name!r}: expected an UpdateRule, got a {made.__name__}; make it one")
    ours, theirs = UpdateRule.api_version, made.api_version
    if theirs != ours:
        older = "metalearn-core" if isinstance(theirs, int) and theirs > ours else entry.distribution
        raise UsageError(
            f"rule {entry.name!r} is written for API {theirs}, metalearn-core has API {ours}: upgrade {older}"
        )


def call_plugin(plugins_code: Callable[[], Any], failed: str) -> Any:
    """What a plugin answers, its prints sent to standard error; UsageError for whatever it raises."""
    try:
        with redirect_stdout(sys.stderr):
            return plugins_code()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UsageError(f"{failed}: {type(error).__name__}: {' '.join(str(error).split())}") from error
