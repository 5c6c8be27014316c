"""Learned update rules: tasks, base-learners, rules, and the two loops that train them.

Names load when first used, so that programs which only read records or names need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# fmt: off
if TYPE_CHECKING:
    from metalearn_core._higher import TWINS as TWINS, TwinOptimizer as TwinOptimizer
    from metalearn_core.errors import UsageError as UsageError, unknown as unknown
    from metalearn_core.inner_loop import (
        Clipping as Clipping, Order as Order, adapt as adapt, meta_gradient as meta_gradient,
        trajectory as trajectory,
    )
    from metalearn_core.learner import (
        BaseLearner as BaseLearner, ParameterLayout as ParameterLayout, forked_rng as forked_rng,
    )
    from metalearn_core.outer_loop import (
        Event as Event, Observer as Observer, Settings as Settings, Snapshot as Snapshot,
        Trained as Trained, evaluate as evaluate, meta_test as meta_test, meta_train as meta_train,
    )
    from metalearn_core.registry import (
        Registered as Registered, Registry as Registry, base_learners as base_learners,
        default_registry as default_registry, hookimpl as hookimpl, make_rule as make_rule,
        observers as observers, rules as rules, task_families as task_families,
    )
    from metalearn_core.rule import (
        Signal as Signal, State as State, UpdateRule as UpdateRule, log_and_sign as log_and_sign,
    )
    from metalearn_core.stream import TaskStream as TaskStream, seeded_generator as seeded_generator
    from metalearn_core.task import Batch as Batch, Task as Task, TaskFamily as TaskFamily
# fmt: on

_PUBLIC = {
    "_higher": "TWINS TwinOptimizer",
    "errors": "UsageError unknown",
    "inner_loop": "Clipping Order adapt meta_gradient trajectory",
    "learner": "BaseLearner ParameterLayout forked_rng",
    "outer_loop": "Event Observer Settings Snapshot Trained evaluate meta_test meta_train",
    "registry": "Registered Registry base_learners default_registry hookimpl make_rule observers"
    " rules task_families",
    "rule": "Signal State UpdateRule log_and_sign",
    "stream": "TaskStream seeded_generator",
    "task": "Batch Task TaskFamily",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
