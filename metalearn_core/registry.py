"""What is installed, by name: rules and their places on the map, families, learners, observers, gradients."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

import attrs

from metalearn_core.errors import UsageError, require_kinds, unknown
from metalearn_core.outer_gradient import BACKPROPAGATION, MetaGradient, OuterGradient
from metalearn_core.registration.entries import (
    Catalogue,
    PluginReport,
    Registered,
    call_plugin,
    require_compatible_rule,
)
from metalearn_core.registration.hooks import GROUP, KINDS, plugin_manager
from metalearn_core.rule import UpdateRule
from metalearn_core.training.meta_gradient import meta_gradient
from metalearn_core.training.parameters import ParameterLayout

LOAD_PLUGINS = "METALEARN_LOAD_PLUGINS"
"""The environment variable that names the plugins to load, `a,b`; empty: none; not set: all."""


class Registry:
    """The plugins of one program.

    Args:
        discover: False finds no plugin by itself; `register` adds one.
        only: the plugins to load, by their own name or that of their distribution; None loads all that are
            installed.

    Raises:
        UsageError: for a name in `only` that no installed plugin has.

    Example:
        >>> from types import SimpleNamespace
        >>> from metalearn_core import ParameterLayout, Registry, UpdateRule, hookimpl
        >>> class HalfStep(UpdateRule):
        ...     def update(self, theta, signal, state):
        ...         return theta - 0.5 * signal.grad, state
        >>> @hookimpl
        ... def metalearn_update_rules():
        ...     return {"half-step": lambda layout: HalfStep()}
        >>> registry = Registry(discover=False)
        >>> registry.register(SimpleNamespace(metalearn_update_rules=metalearn_update_rules), "mine")
        >>> registry.make_rule("half-step", ParameterLayout(("weight",), ((3,),)))
        HalfStep()
    """

    def __init__(self, *, discover: bool = True, only: Collection[str] | None = None) -> None:
        self._manager = plugin_manager()
        self._reports: list[PluginReport] = []
        self.catalogues = {hook: Catalogue(kind, self._reports) for hook, kind in KINDS.items()}
        if discover:
            self._discover(only)

    @property
    def reports(self) -> list[PluginReport]:
        """What became of each plugin; a name that several claim is an error of every one of them."""
        clashes = [(c.clash(n), who) for c in self.catalogues.values() for n, who in c.contested.items()]
        reported = (
            (report, [clash for clash, who in clashes if (report.distribution, report.name) in who])
            for report in self._reports
        )
        return [
            attrs.evolve(r, error="; ".join(filter(None, [r.error, *more])) or None) for r, more in reported
        ]

    def _discover(self, only: Collection[str] | None) -> None:
        # pluggy's own loader lets one broken plugin end the host and skips a second owner in silence
        # of two versions of a distribution on the path, Python imports the first
        found: dict[str, importlib.metadata.Distribution] = {}
        for distribution in importlib.metadata.distributions():
            found.setdefault(_canonical(distribution.metadata["Name"] or ""), distribution)
        points = {
            (point.name, point.value): (point, distribution)
            for distribution in reversed(found.values())
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
                plugin = call_plugin(point.load, "failed to import")
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
                require_compatible_rule(entry, entry.factory)
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
            mapping = call_plugin(getattr(plugin, hook), f"{hook} failed")
            if not isinstance(mapping, Mapping) or not all(
                isinstance(key, str) and key.strip() and callable(made) for key, made in mapping.items()
            ):
                raise UsageError(f"{hook} must return a mapping of names to callables, got {mapping!r:.200}")
            found += [(hook, Registered(KINDS[hook], k, f, name, distribution)) for k, f in mapping.items()]
        return found

    def make_meta_gradient(self, name: str, **options: Any) -> MetaGradient:
        """An outer gradient by name. Raises UsageError for an unknown name or option."""
        catalogue = self.catalogues["metalearn_meta_gradients"]
        if name == BACKPROPAGATION and name not in catalogue.contested:
            if options:
                raise UsageError(f"meta-gradient {name!r}: it has no options, got {', '.join(options)}")
            return meta_gradient
        entry = catalogue[name]
        try:
            entry.require_options(options)
        except UsageError as error:
            raise UsageError(f"meta-gradient {name!r}: {error}") from error
        return OuterGradient(entry.factory, name, options)

    def make_rule(self, name: str, layout: ParameterLayout, **options: Any) -> UpdateRule:
        """An update rule by name. Raises UsageError for one that is unknown, of another API, or fails."""
        entry = self.catalogues["metalearn_update_rules"][name]
        require_compatible_rule(entry, entry.factory)
        rule: UpdateRule = entry(layout, **options)
        require_compatible_rule(entry, type(rule))
        if "_parameters" not in vars(rule):
            raise UsageError(f"rule {name!r}: __init__ of {type(rule).__name__} must call super().__init__()")
        return rule


def _canonical(distribution: str) -> str:
    """A distribution's name as indexes compare it: metalearn_lstm and Metalearn.LSTM are one."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


@functools.cache
def default_registry() -> Registry:
    """Return the registry of what is installed, or of what METALEARN_LOAD_PLUGINS names.

    Returns:
        The registry that `make_rule` and `rules` read, made at the first call.

    Raises:
        UsageError: where METALEARN_LOAD_PLUGINS names a plugin that is not installed.

    Example:
        >>> from metalearn_core import default_registry
        >>> "gradient-descent" in [report.name for report in default_registry().reports]
        True
    """
    wanted = os.environ.get(LOAD_PLUGINS)
    return Registry(only=None if wanted is None else [n for n in map(str.strip, wanted.split(",")) if n])


def make_rule(name: str, layout: ParameterLayout, **options: Any) -> UpdateRule:
    """Make an installed update rule.

    Args:
        name: the name that it is registered under; see `rules`.
        layout: of the parameters that it will update.
        options: those of the rule, by keyword.

    Returns:
        The rule, with its φ as they start.

    Raises:
        UsageError: for an unknown name or option, and for a value that the rule refuses.

    Example:
        >>> from metalearn_core import ParameterLayout, make_rule
        >>> layout = ParameterLayout(("weight", "bias"), ((2, 3), (3,)))
        >>> rule = make_rule("gradient-descent", layout, inner_lr=0.1, learn_lr="tensor")
        >>> [(name, tuple(phi.shape)) for name, phi in rule.named_parameters()]
        [('inner_lr', (2,))]
    """
    require_kinds("make_rule", name=(name, str), layout=(layout, ParameterLayout))
    return default_registry().make_rule(name, layout, **options)


def make_meta_gradient(name: str, **options: Any) -> MetaGradient:
    """Make an installed outer gradient, for `meta_train(..., meta_gradient=)`.

    Args:
        name: the name that it is registered under, or `"backpropagation"`, which is `meta_gradient`.
        options: those of the outer gradient, by keyword.

    Returns:
        A function that is called, and answers, as `meta_gradient`. It refuses an answer that does not fit.

    Raises:
        UsageError: for an unknown name or option.

    Example:
        >>> from metalearn_core import make_meta_gradient
        >>> make_meta_gradient("backpropagation").__name__
        'meta_gradient'
        >>> make_meta_gradient("back-propagation")
        Traceback (most recent call last):
        metalearn_core.errors.UsageError: unknown meta-gradient 'back-propagation': ...
    """
    require_kinds("make_meta_gradient", name=(name, str))
    return default_registry().make_meta_gradient(name, **options)


def rules() -> Catalogue:
    """List the installed update rules by name.

    Returns:
        `{name: factory}`; a name that is not there raises a UsageError that offers the nearest one.

    Example:
        >>> from metalearn_core import rules
        >>> rules()["gradient-descent"].distribution
        'metalearn-gradient-descent'
    """
    return default_registry().catalogues["metalearn_update_rules"]


def task_families() -> Catalogue:
    """List the installed task families by name.

    Returns:
        `{name: factory}`; a name that is not there raises a UsageError that offers the nearest one.

    Example:
        >>> from metalearn_core import task_families
        >>> sine = task_families()["sine"](support=5, query=10)
        >>> sine.splits
        ('train', 'validation', 'test')
    """
    return default_registry().catalogues["metalearn_task_families"]


def base_learners() -> Catalogue:
    """List the installed base-learners by name.

    Returns:
        `{name: factory}`; a name that is not there raises a UsageError that offers the nearest one.

    Example:
        >>> from metalearn_core import base_learners
        >>> learner = base_learners()["mlp"](hidden=[8], inputs=1, outputs=1)
        >>> learner.layout.size
        25
    """
    return default_registry().catalogues["metalearn_base_learners"]


def meta_gradients() -> Catalogue:
    """List the installed outer gradients by name, besides backpropagation.

    Returns:
        `{name: function}`; a name that is not there raises a UsageError that offers the nearest one.

    Example:
        >>> from metalearn_core import meta_gradients
        >>> meta_gradients()["reptile"].distribution
        'metalearn-reptile'
    """
    return default_registry().catalogues["metalearn_meta_gradients"]


def observers() -> Catalogue:
    """List the installed observers of runs by name.

    Returns:
        `{name: factory}`; a name that is not there raises a UsageError that offers the nearest one.

    Example:
        >>> from metalearn_core import observers
        >>> observers()["tensorboard"].kind
        'observer'
    """
    return default_registry().catalogues["metalearn_observers"]


def placements() -> Catalogue:
    """List the installed placements on the map of rules by name.

    Returns:
        `{name: factory}`; a name that is not there raises a UsageError that offers the nearest one.

    Example:
        >>> from metalearn_core import placements
        >>> placements()["lslr"].kind
        'placement'
    """
    return default_registry().catalogues["metalearn_map"]
