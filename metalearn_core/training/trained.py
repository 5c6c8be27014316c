"""What meta-training knows: θ⁰, φ, the optimiser, the best state, and all that a checkpoint holds."""

from __future__ import annotations

import copy
import ctypes
import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metalearn_core.errors import CheckpointError, UsageError, require_kinds
from metalearn_core.learner import BaseLearner, in_words
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Settings
from metalearn_core.task import TaskFamily
from metalearn_core.training.checkpoint import load_checkpoint


def _cloned(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


@attrs.frozen(eq=False)
class Snapshot:
    """A whole state at one position: θ⁰, φ and the optimiser, with its validation score."""

    position: int
    score: float
    theta: Tensor
    phi: dict[str, Tensor]
    optimizer: dict[str, Any]

    @classmethod
    def of(
        cls, position: int, score: float, theta: Tensor, rule: UpdateRule, adam: torch.optim.Adam
    ) -> Snapshot:
        """A copy of the state as it is."""
        # cloned, not deep-copied: that would copy all that a tensor is a view of
        phi, optimizer = pytree.tree_map(_cloned, (dict(rule.state_dict()), adam.state_dict()))
        return cls(position, score, theta.detach().clone(), phi, optimizer)


@attrs.frozen
class Event:
    """What an observer is told.

    `kind`: start, engine, compiling, step, evaluating, validation, checkpoint, diverged or end.
    `evaluating` comes before each batch of validation tasks, `compiling` before each program.
    """

    kind: str
    position: int
    values: Mapping[str, float | str] = attrs.field(factory=dict)


Observer = Callable[[Event], None]


@attrs.define(eq=False)
class Trained:
    """Everything that meta-training knows, and all that it needs to go on.

    Args:
        about: what rule, learner and tasks training began with, in words that another process has, too.
        origin: a hash of the θ⁰ and φ that training began with.
        theta: θ⁰ as it is now, `[n]`; `best` holds that of the best validation.
        rule: the rule with its φ as it is now.
        position: tasks seen.
        generator: the stream that weights were drawn from.
        validations: `(position, mean score)`, in order.
        diverged: why training stopped early (outer step, task), or None.
        engine: the one chosen, `"eager"` or `"compiled"`; empty before the first step.
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
        family: TaskFamily,
    ) -> Trained:  # fmt: skip
        """What there is before the first step. Raises UsageError for an argument of another kind."""
        require_kinds("meta_train", rule=(rule, UpdateRule), learner=(learner, BaseLearner))
        require_kinds("meta_train", settings=(settings, Settings), generator=(generator, torch.Generator))
        if not hasattr(family, "splits") or not hasattr(family, "sample"):
            raise UsageError(f"meta_train: family must have splits and sample, got a {type(family).__name__}")
        about = _about(rule, learner, family)
        rule = copy.deepcopy(rule).to(learner.device, learner.dtype)
        theta = learner.initial(generator).requires_grad_()
        learned = [parameter for parameter in rule.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam([theta, *learned], lr=settings.outer_lr)
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
            self._require_own(payload["fingerprint"], path, ignoring)
            self._become(payload)
        except UsageError:
            raise
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(path, f"not what a checkpoint holds ({error!r})") from error

    def _require_own(self, theirs: dict[str, str], path: Path, ignoring: Collection[str]) -> None:
        ours = _fingerprint(self)
        for key in dict.fromkeys(key for key in (*ours, *theirs) if key not in ignoring):
            if theirs.get(key) != ours.get(key):
                reason = f"it is of another run: {key} is {theirs.get(key)} there and {ours.get(key)} here"
                raise CheckpointError(path, reason, damaged=False)

    def _become(self, payload: Mapping[str, Any]) -> None:
        now = Snapshot(**payload["now"])
        with torch.no_grad():
            self.theta.copy_(now.theta)
        self.rule.load_state_dict(now.phi)
        self.optimizer.load_state_dict(now.optimizer)
        self.generator.set_state(payload["generator"])
        self.best, self.position = Snapshot(**payload["best"]), now.position
        self.validations = [(int(where), float(score)) for where, score in payload["validations"]]
        self.diverged, self.engine = payload["diverged"], payload["engine"]


def digest(*tensors: Tensor) -> str:
    """A hash of the tensors' bytes; numpy, which torch can do without, is not asked for them."""
    found = hashlib.sha256()
    for tensor in (x.detach().cpu().contiguous() for x in tensors if x.numel()):
        found.update(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))
    return found.hexdigest()


_CONTENTS = {"fingerprint", "now", "best", "generator", "validations", "diverged", "engine"}


def _fingerprint(trained: Trained) -> dict[str, str]:
    """What a checkpoint must agree in. When checkpoints are written has no part in it."""
    plain = attrs.asdict(trained.settings)
    del plain["checkpoint_seconds"]
    return {
        **trained.about,
        **{f"settings.{name}": repr(value) for name, value in plain.items()},
        "origin": trained.origin,  # last: it differs wherever something above does
    }


def _about(rule: UpdateRule, learner: BaseLearner, family: TaskFamily) -> dict[str, str]:
    """Rule, learner and tasks in words that another process has too."""
    layout, parts = learner.layout, dict(rule.named_modules())
    kinds = {path: type(part).__qualname__ for path, part in parts.items() if path}
    options = {f"{path}.{k}".lstrip("."): _described(v) for path, p in parts.items() for k, v in _public(p)}
    # what a family keeps in containers may be what it has drawn so far
    tasks = [(k, _described(v)) for k, v in _public(family) if not isinstance(v, list | dict | set)]
    return {
        "rule": rule.label,
        "layout": repr(list(zip(layout.names, layout.shapes, strict=True))),
        "learner": f"{learner.describe()}, {learner.dtype}",
        "what is frozen in the learner": digest(*learner.constants.values()),
        "meta-parameters": repr({k: (*v.shape, v.requires_grad) for k, v in rule.named_parameters()}),
        "parts": repr(kinds),
        "options": repr(options),
        **{f"buffer {name}": digest(buffer) for name, buffer in rule.named_buffers()},
        "tasks": f"{type(family).__qualname__} {tasks}",
    }


def _public(thing: object) -> list[tuple[str, Any]]:
    """Its attributes by name, in order; `training` says nothing of a rule."""
    made = type(thing)
    fields = attrs.fields_dict(made) if attrs.has(made) else getattr(thing, "__dict__", {})
    names = sorted(name for name in fields if not name.startswith("_") and name != "training")
    return [(name, getattr(thing, name)) for name in names]


def _described(value: object) -> str:
    """A value in one line: sets in order, a φ by its shape, another tensor by its bytes."""
    value = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
    plain = pytree.tree_map_only(
        Tensor, lambda x: tuple(x.shape) if isinstance(x, nn.Parameter) else digest(x), value
    )
    return in_words(plain)
