"""What meta-training knows: θ⁰, φ, the optimiser, the best state, and all that a checkpoint holds."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import CheckpointError, UsageError, require_kinds
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Settings
from metalearn_core.task import TaskFamily
from metalearn_core.training.checkpoint import load_checkpoint
from metalearn_core.training.fingerprint import describe_run, digest
from metalearn_core.training.snapshot import Snapshot
from metalearn_core.training.task_stream import require_family


@attrs.define(eq=False)
class Trained:
    """Everything that meta-training knows, and all that it needs to go on.

    Args:
        rule: the rule with its φ as it is now.
        learner: the base-learner.
        settings: those of the training.
        theta: θ⁰ as it is now, `[n]`; `best` holds that of the best validation.
        optimizer: the Adam that moves θ⁰ and φ.
        generator: the stream that weights were drawn from.
        best: the state of the best validation so far.
        about: what rule, learner and tasks training began with, in words that another process has, too.
        origin: a hash of the θ⁰ and φ that training began with.
        position: the number of tasks used.
        validations: `(position, mean score)`, in order.
        diverged: why training stopped early (outer step, task), or None.
        engine: the one chosen, `"eager"` or `"compiled"`; empty before the first step.

    Example:
        >>> import torch
        >>> from metalearn_core import Settings, adapt, make_rule, meta_train
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner, settings = tiny_learner(), Settings(tasks=4, steps=1, validation_tasks=2)
        >>> rule = make_rule("gradient-descent", learner.layout)
        >>> generator = torch.Generator().manual_seed(0)
        >>> trained = meta_train(rule, learner, TinySines(), settings, generator=generator)
        >>> rule, theta = trained.at_best()
        >>> task = TinySines().sample("test", 3, torch.Generator().manual_seed(1))
        >>> adapt(rule, learner, theta, task.support, steps=5).shape == (3, learner.layout.size)
        True
    """

    rule: UpdateRule
    learner: BaseLearner
    settings: Settings
    theta: Tensor
    optimizer: torch.optim.Adam
    generator: torch.Generator
    best: Snapshot
    about: Mapping[str, str]
    origin: str
    position: int = 0
    validations: list[tuple[int, float]] = attrs.field(factory=list)
    diverged: str | None = None
    engine: str = ""

    @classmethod
    def begin(
        cls, rule: UpdateRule, learner: BaseLearner, settings: Settings, generator: torch.Generator,
        family: TaskFamily, outer: str = "",
    ) -> Trained:  # fmt: skip
        """What there is before the first step. Raises UsageError for an argument of another kind.

        `outer`: the outer gradient in words, empty for backpropagation.
        """
        require_kinds("meta_train", rule=(rule, UpdateRule), learner=(learner, BaseLearner))
        require_kinds("meta_train", settings=(settings, Settings), generator=(generator, torch.Generator))
        require_family("meta_train", family)
        about = describe_run(rule, learner, family) | ({"meta-gradient": outer} if outer else {})
        rule = copy.deepcopy(rule).to(learner.device, learner.dtype)
        theta = learner.initial(generator).requires_grad_()
        if rule.uses_noise:
            _seed_noise(rule, generator)
        learned = [parameter for parameter in rule.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam([theta, *learned], lr=settings.outer_lr_at(0))
        untested = Snapshot.of(0, float("nan"), theta, rule, adam)
        origin = digest(theta, *rule.state_dict().values())
        return cls(rule, learner, settings, theta, adam, generator, untested, about, origin)

    def at_best(self) -> tuple[UpdateRule, Tensor]:
        """A copy of the rule with φ, and θ⁰, of the best validation."""
        rule = copy.deepcopy(self.rule)
        rule.load_state_dict(self.best.phi)
        return rule, self.best.theta.to(self.theta, copy=True)

    def snapshot(self, score: float) -> Snapshot:
        """The present state, copied."""
        return Snapshot.of(self.position, score, self.theta, self.rule, self.optimizer)

    def contents(self) -> dict[str, Any]:
        """Everything, as a checkpoint holds it."""
        return {
            "fingerprint": _fingerprint(self),
            "now": attrs.asdict(self.snapshot(float("nan")), recurse=False),
            "best": attrs.asdict(self.best, recurse=False),
            "generator": self.generator.get_state(),
            "validations": list(self.validations),
            "diverged": self.diverged,
            "engine": self.engine,
        }

    def require_alike(self, other: Trained) -> None:
        """UsageError unless the two differ in the values of θ⁰ and φ alone."""
        ours, theirs = ({**_fingerprint(one), "origin": ""} for one in (self, other))
        for key in dict.fromkeys((*ours, *theirs)):
            if ours.get(key) != theirs.get(key):
                raise UsageError(
                    f"seeds that train together must differ in θ⁰ and φ alone: {key} is {ours.get(key)} of"
                    f" one and {theirs.get(key)} of another"
                )

    def restore(self, path: Path, *, ignoring: Collection[str] = ()) -> None:
        """Continue from a checkpoint; CheckpointError if it is damaged, or of another run than this one.

        `ignoring`: what may differ, by its name in that error. Whoever only reads what was trained need
        not draw the same `origin`, which other machines and versions may not.
        """
        self.take(load_checkpoint(path, _CONTENTS), path, ignoring)

    def take(self, payload: Mapping[str, Any], path: Path, ignoring: Collection[str] = ()) -> None:
        """The same with `contents()` that came from elsewhere; `path` names it in errors."""
        try:
            self._require_same_run(payload["fingerprint"], path, ignoring)
            self._copy_in(payload)
        except UsageError:
            raise
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(path, f"not what a checkpoint holds ({error!r})") from error

    def _require_same_run(self, theirs: dict[str, str], path: Path, ignoring: Collection[str]) -> None:
        ours = _fingerprint(self)
        for key in dict.fromkeys(key for key in (*ours, *theirs) if key not in ignoring):
            if theirs.get(key) != ours.get(key):
                reason = f"it is of another run: {key} is {theirs.get(key)} there and {ours.get(key)} here"
                raise CheckpointError(path, reason, damaged=False)

    def _copy_in(self, payload: Mapping[str, Any]) -> None:
        now = Snapshot(**payload["now"])
        with torch.no_grad():
            self.theta.copy_(now.theta)
        self.rule.load_state_dict(now.phi)
        self.optimizer.load_state_dict(now.optimizer)
        self.generator.set_state(payload["generator"])
        self.best, self.position = Snapshot(**payload["best"]), now.position
        self.validations = [(int(where), float(score)) for where, score in payload["validations"]]
        self.diverged, self.engine = payload["diverged"], payload["engine"]


_CONTENTS = {"fingerprint", "now", "best", "generator", "validations", "diverged", "engine"}


def _seed_noise(rule: UpdateRule, generator: torch.Generator) -> None:
    """Give the rule noise of its own. UsageError for one that cannot have it."""
    seed = rule.seed_of_noise
    if not isinstance(seed, Tensor):
        raise UsageError(f"rule {rule.label}: set uses_noise in the class, or before super().__init__()")
    drawn = torch.randint(2**31, (), generator=generator, device=generator.device)
    with torch.no_grad():
        seed.copy_(drawn)


def _fingerprint(trained: Trained) -> dict[str, str]:
    """What a checkpoint must agree in. When checkpoints are written has no part in it."""
    plain = attrs.asdict(trained.settings)
    del plain["checkpoint_seconds"]
    return {
        **trained.about,
        **{f"settings.{name}": repr(value) for name, value in plain.items()},
        "origin": trained.origin,  # last: it differs wherever something above does
    }
