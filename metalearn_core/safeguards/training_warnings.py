"""What a training refuses or warns of: φ that is no number, an early stop, nothing to learn from."""

from __future__ import annotations

import warnings

from metalearn_core.errors import DivergenceWarning, TrainingWarning, UsageError
from metalearn_core.training.trained import Trained

FIRST_STEPS = 3
"""Outer steps after which a meta-gradient that was always 0 is told."""


def require_numbers(trained: Trained) -> None:
    """Raise UsageError for a φ or θ⁰ that holds a NaN before anything is trained: no step would be finite."""
    for name, tensor in (("the initialisation", trained.theta), *trained.rule.named_parameters()):
        if tensor.isnan().any():
            raise UsageError(
                f"meta_train: rule {trained.rule.label}: {name} is nan before training; give the rule numbers"
            )


def warn_of_divergence(trained: Trained) -> None:
    """Warn where training stopped early."""
    if trained.diverged is not None:
        warnings.warn(
            f"meta_train: training stopped after {trained.position} of {trained.settings.tasks} tasks"
            f" ({trained.diverged}); what is kept is the best validation, at {trained.best.position}; lower"
            " inner_lr or outer_lr, or bound gradients with inner_clip and outer_clip",
            DivergenceWarning,
            stacklevel=4,
        )


def warn_of_no_gradient(trained: Trained) -> None:
    """Warn where the meta-gradients of the first outer steps were exactly 0, for θ⁰ and every φ."""
    kept = trained.optimizer.state.values()
    # Adam's averages are 0 just where every gradient was
    if kept and all(int(x["step"]) == FIRST_STEPS and not bool(x["exp_avg"].any()) for x in kept):
        warnings.warn(
            f"meta_train: rule {trained.rule.label}: the meta-gradient was exactly 0, for θ⁰ and every φ, in"
            f" each of the first {FIRST_STEPS} outer steps, so nothing is learned: the query loss after"
            f" {trained.settings.steps} inner steps depends on none of them; look for a detach(), for frozen"
            " parameters, and for a T that the rule is not made for",
            TrainingWarning,
            stacklevel=6,
        )
