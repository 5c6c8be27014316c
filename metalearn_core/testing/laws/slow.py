"""The laws that take long: a rule is compiled, learns something, and goes on from a checkpoint."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import torch

from metalearn_core.errors import TrainingWarning
from metalearn_core.evaluation import evaluate
from metalearn_core.kernels.programs import CompilationError, CompiledMetaGradient
from metalearn_core.learner import BaseLearner
from metalearn_core.outer_loop import meta_train
from metalearn_core.settings import Settings
from metalearn_core.testing.laws.problems import (
    Law,
    MakeRule,
    close,
    is_given,
    make,
    nudged,
    problem,
    require,
)
from metalearn_core.testing.tiny_tasks import TinySines, tiny_learner
from metalearn_core.training.events import Event, Observer
from metalearn_core.training.meta_gradient import meta_gradient
from metalearn_core.training.trained import Trained

SETTINGS = Settings(
    tasks=600,
    meta_batch=4,
    steps=5,
    outer_lr=0.003,
    validation_interval=100,
    validation_tasks=20,
    engine="eager",
)


def law_compiled(make_rule: MakeRule) -> str | None:
    """Compiled, a meta-gradient is the eager one to rounding; a rule that cannot be compiled runs eager.

    On other numbers than it was compiled with: θ⁰, φ and tasks.
    """
    learner, theta, task = problem()
    rule = make(make_rule, learner.layout)
    program = CompiledMetaGradient(rule, learner, steps=2)
    try:
        program(theta, task)
    except CompilationError as error:
        return f"it cannot be compiled and runs eager: {' '.join(str(error).split()):.200}"
    theta, task, rule = -0.7 * theta, task.map(lambda x: x.flip(0) + 0.3), nudged(rule, 2)
    compiled, eager = program(theta, task), meta_gradient(rule, learner, theta, task, steps=2)
    pairs = [(compiled[0], eager[0]), (compiled[1], eager[1])]
    pairs += [(compiled[2][name], grad) for name, grad in eager[2].items()]
    require(
        all(close(ours, theirs, 1e-8) for ours, theirs in pairs),
        "the compiled meta-gradient is not the eager one; look for what update does only when it is traced,"
        " and for numbers it read once in __init__ that change later",
    )
    return None


_ON_SINES = "it trains on sines, and the rule is looked at on a problem of its own"


def law_resumes(make_rule: MakeRule) -> str | None:
    """Training that stopped and went on from its checkpoint ends in the same bits as one that did not."""
    if is_given():
        return _ON_SINES
    learner, settings = tiny_learner(), attrs.evolve(SETTINGS, tasks=40)
    whole = _trained(make_rule, learner, settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"

        def stop(event: Event) -> None:
            if event.kind == "step" and event.position >= 20:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            _trained(make_rule, learner, settings, path, [stop])
        resumed = _trained(make_rule, learner, settings, path)
    ours, theirs = ([trained.theta, *trained.rule.state_dict().values()] for trained in (resumed, whole))
    require(
        all(map(torch.equal, ours, theirs)),
        "training that went on from a checkpoint ends elsewhere than training in one go; register everything"
        " that changes while training as nn.Parameter or with register_buffer",
    )
    return None


def law_learns(make_rule: MakeRule) -> str | None:
    """A few hundred sine tasks of meta-training make the query loss after adaptation smaller."""
    if is_given():
        return _ON_SINES
    learner = tiny_learner()
    losses = []
    for tasks in (0, SETTINGS.tasks):
        settings = attrs.evolve(SETTINGS, tasks=tasks)
        trained = _trained(make_rule, learner, settings)
        rule, theta = trained.at_best()
        scores = evaluate(rule, learner, theta, TinySines(), settings, split="test", tasks=100)
        losses.append(float(scores[:, -1].mean()))
    require(
        losses[1] < 0.95 * losses[0],
        f"{SETTINGS.tasks} tasks of meta-training leave the query loss at {losses[1]:.3g}, before it was"
        f" {losses[0]:.3g}; look at where φ starts, and at the scale of the first updates",
    )
    return None


def _trained(
    make_rule: MakeRule, learner: BaseLearner, settings: Settings,
    checkpoint: Path | None = None, observers: Sequence[Observer] = (),
) -> Trained:  # fmt: skip
    rule, generator = make(make_rule, learner.layout, dtype=learner.dtype), torch.Generator().manual_seed(0)
    given: dict[str, Any] = {"generator": generator, "checkpoint": checkpoint, "observers": observers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # the law says it
        return meta_train(rule, learner, TinySines(), settings, **given)


SLOW_LAWS: dict[str, Law] = {"compiled": law_compiled, "resumes": law_resumes, "learns": law_learns}
"""Those of `check_update_rule(slow=True)`, by name."""
