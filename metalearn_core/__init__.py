"""Learned update rules: tasks, base-learners, rules, and the two loops that train them.

Names load when first used, so that programs which only read records or names need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalearn_core._higher import TWINS as TWINS
    from metalearn_core._higher import TwinOptimizer as TwinOptimizer
    from metalearn_core.errors import UsageError as UsageError
    from metalearn_core.errors import unknown as unknown
    from metalearn_core.inner_loop import (
        Clipping as Clipping,
    )  # fmt: skip
    from metalearn_core.inner_loop import (
        Order as Order,
    )
    from metalearn_core.inner_loop import (
        adapt as adapt,
    )
    from metalearn_core.inner_loop import (
        meta_gradient as meta_gradient,
    )
    from metalearn_core.inner_loop import (
        trajectory as trajectory,
    )
    from metalearn_core.learner import (
        BaseLearner as BaseLearner,
    )  # fmt: skip
    from metalearn_core.learner import (
        ParameterLayout as ParameterLayout,
    )
    from metalearn_core.learner import (
        forked_rng as forked_rng,
    )
    from metalearn_core.outer_loop import (
        Event as Event,
    )  # fmt: skip
    from metalearn_core.outer_loop import (
        Observer as Observer,
    )
    from metalearn_core.outer_loop import (
        Settings as Settings,
    )
    from metalearn_core.outer_loop import (
        Snapshot as Snapshot,
    )
    from metalearn_core.outer_loop import (
        Trained as Trained,
    )
    from metalearn_core.outer_loop import (
        evaluate as evaluate,
    )
    from metalearn_core.outer_loop import (
        meta_test as meta_test,
    )
    from metalearn_core.outer_loop import (
        meta_train as meta_train,
    )
    from metalearn_core.registry import (
        Registered as Registered,
    )  # fmt: skip
    from metalearn_core.registry import (
        Registry as Registry,
    )
    from metalearn_core.registry import (
        base_learners as base_learners,
    )
    from metalearn_core.registry import (
        default_registry as default_registry,
    )
    from metalearn_core.registry import (
        hookimpl as hookimpl,
    )
    from metalearn_core.registry import (
        make_rule as make_rule,
    )
    from metalearn_core.registry import (
        observers as observers,
    )
    from metalearn_core.registry import (
        rules as rules,
    )
    from metalearn_core.registry import (
        task_families as task_families,
    )
    from metalearn_core.rule import (
        Signal as Signal,
    )  # fmt: skip
    from metalearn_core.rule import (
        State as State,
    )
    from metalearn_core.rule import (
        UpdateRule as UpdateRule,
    )
    from metalearn_core.rule import (
        log_and_sign as log_and_sign,
    )
    from metalearn_core.stream import TaskStream as TaskStream
    from metalearn_core.stream import seeded_generator as seeded_generator
    from metalearn_core.task import Batch as Batch
    from metalearn_core.task import Task as Task
    from metalearn_core.task import TaskFamily as TaskFamily

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
