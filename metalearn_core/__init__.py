"""Learned update rules: tasks, base-learners, rules, and the two loops that train them."""

from importlib.metadata import version as _version

from metalearn_core._higher import TWINS, TwinOptimizer
from metalearn_core.adapt import Clipping, Order, adapt, meta_gradient, trajectory
from metalearn_core.errors import UsageError, unknown
from metalearn_core.learner import BaseLearner, ParameterLayout, forked_rng
from metalearn_core.registry import (
    PluginReport,
    Registered,
    Registry,
    base_learners,
    default_registry,
    hookimpl,
    make_base_learner,
    make_observer,
    make_rule,
    make_task_family,
    observers,
    rules,
    task_families,
)
from metalearn_core.rule import Signal, State, UpdateRule, log_and_sign
from metalearn_core.stream import TaskStream, seeded_generator
from metalearn_core.task import Batch, Task, TaskFamily
from metalearn_core.train import (
    Event,
    Observer,
    Settings,
    Snapshot,
    Trained,
    evaluate,
    meta_test,
    meta_train,
)

__version__ = _version("metalearn-core")

__all__ = [
    "TWINS",
    "BaseLearner",
    "Batch",
    "Clipping",
    "Event",
    "Observer",
    "Order",
    "ParameterLayout",
    "PluginReport",
    "Registered",
    "Registry",
    "Settings",
    "Signal",
    "Snapshot",
    "State",
    "Task",
    "TaskFamily",
    "TaskStream",
    "Trained",
    "TwinOptimizer",
    "UpdateRule",
    "UsageError",
    "adapt",
    "base_learners",
    "default_registry",
    "evaluate",
    "forked_rng",
    "hookimpl",
    "log_and_sign",
    "make_base_learner",
    "make_observer",
    "make_rule",
    "make_task_family",
    "meta_gradient",
    "meta_test",
    "meta_train",
    "observers",
    "rules",
    "seeded_generator",
    "task_families",
    "trajectory",
    "unknown",
]
