"""Learned update rules: tasks, base-learners, rules, and the two loops that train them.

Names load when first used, so that programs which only read records or names need no torch;
the stub beside this file tells type checkers what they are.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "errors": "UsageError unknown",
    "evaluation": "evaluate meta_test",
    "inner_loop": "adapt trajectory",
    "kernels.coordinatewise": "Coordinatewise coordinatewise_cell",
    "kernels.programs": "CompiledMetaGradient",
    "learner": "BaseLearner",
    "training.noise": "keyed_normal",
    "optimizers.learned": "LearnedOptimizer",
    "optimizers.torch_twins": "TWINS TwinOptimizer",
    "outer_gradient": "query_losses support_losses",
    "outer_loop": "meta_train meta_train_seeds",
    "registration.entries": "PluginReport Registered",
    "registration.hooks": "hookimpl",
    "registry": "Registry base_learners default_registry make_meta_gradient make_rule meta_gradients"
    " observers placements rules task_families",
    "rule": "State UpdateRule log_and_sign",
    "settings": "Clipping Order OuterSchedule Settings",
    "signal": "Noise Signal SupportSet",
    "task": "Batch Task TaskFamily",
    "training.events": "Event Observer",
    "training.files": "write_atomically",
    "training.meta_gradient": "loss_weights meta_gradient",
    "training.parameters": "ParameterLayout forked_rng keep_parameters",
    "training.processes": "FailedElsewhereError LostProcessError Processes",
    "training.snapshot": "Snapshot",
    "training.task_stream": "TaskStream seeded_generator",
    "training.trained": "Trained",
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
