"""A trained rule brought back from an artifact, or refused with what does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_benchmarks.artifacts.files import (
    CARD,
    FORMAT,
    PHI,
    TENSORS,
    THETA,
    installed_version,
    read_artifact,
)
from metalearn_benchmarks.learners.head import Head
from metalearn_core import (
    BaseLearner,
    Clipping,
    ParameterLayout,
    UpdateRule,
    UsageError,
    base_learners,
    forked_rng,
    make_rule,
    rules,
)


@attrs.frozen(eq=False)
class Artifact:
    """A trained rule, and where it starts.

    Args:
        rule: with its φ, in the dtype it was trained in, on the CPU.
        theta: θ⁰, `[n]`; None where the rule was loaded for another layout than its own.
        layout: of θ⁰, or the one that the rule was loaded for.
        steps: T, as it was tested.
        clip: of the gradients that the rule sees, as it was trained.
        card: all that `card.json` says.
    """

    rule: UpdateRule
    theta: Tensor | None
    layout: ParameterLayout
    steps: int
    clip: Clipping | None
    card: dict[str, Any]

    def start(self, learner: BaseLearner | None = None) -> tuple[BaseLearner, Tensor]:
        """The learner and the θ that `rule` adapts: all of θ⁰, or what its method leaves free of it.

        Args:
            learner: of the artifact's layout and dtype; by default the one it was trained on, by its name.

        Raises:
            UsageError: where the learner is not installed or does not fit, and for a rule without θ⁰.
        """
        if self.theta is None:
            raise UsageError("artifact: it was loaded for another layout, so there is no θ⁰; draw one")
        learner = learner or _learner_of(self.card)
        _require_fit(learner, self.layout, self.card["dtype"], _title(self.card))
        theta = self.theta.to(learner.device)
        return Head(learner).alone(theta) if self.card["adapts"] == "head" else (learner, theta)


def load_rule(
    path: Path | str, learner: BaseLearner | ParameterLayout | None = None, *, transfer: bool = False
) -> Artifact:
    """The trained rule and θ⁰ of an artifact that `metalearn export` has written.

    Args:
        path: its folder, or one of its two files. Nothing in them is run.
        learner: what it is to be used with; another layout or dtype than that it was trained on is refused.
        transfer: take the rule alone to the learner's layout, whatever that is; its φ must not depend on
            the layout.

    Returns:
        An `Artifact`: `adapt(artifact.rule, *artifact.start(), support, steps=artifact.steps)`.

    Raises:
        UsageError: for a file that is missing, changed or of another format; a plugin that is not
            installed, or that makes another rule of the same options; a learner that does not fit.
    """
    path = Path(path)
    folder = path.parent if path.name in (CARD, TENSORS) else path
    card, tensors = read_artifact(folder)
    try:
        layout, adapted = (
            ParameterLayout(tuple(card[key]["names"]), tuple(tuple(s) for s in card[key]["shapes"]))
            for key in ("layout", "adapted")
        )
        theta, phi = (
            {name.removeprefix(kind): x for name, x in tensors.items() if name.startswith(kind)}
            for kind in (THETA, PHI)
        )
        clip, steps = card["adaptation"]["clip"], card["adaptation"]["steps"]
        used = _used_layout(card, layout, learner, transfer)
        for_rule = adapted if used == layout else used
        rule = _rule_of(card, for_rule, phi)
        flat = layout.flatten(theta) if used == layout else None
        return Artifact(rule, flat, used, steps, None if clip is None else Clipping(**clip), card)
    except (KeyError, TypeError) as error:
        raise UsageError(f"{folder / CARD}: not as format {FORMAT} has it ({error!r})") from error


def _title(card: Mapping[str, Any]) -> str:
    run = card["run"]
    return f"artifact of {run['method']}, seed {run['seed']}, of {run['experiment']}"


def _used_layout(
    card: Mapping[str, Any],
    layout: ParameterLayout,
    learner: BaseLearner | ParameterLayout | None,
    transfer: bool,
) -> ParameterLayout:
    """The layout to make the rule for; UsageError where it may not be another one."""
    if learner is None:
        if transfer:
            raise UsageError("load_rule: transfer=True needs the learner, or the layout, to transfer to")
        return layout
    other = learner.layout if isinstance(learner, BaseLearner) else learner
    if not transfer or other == layout:
        _require_fit(learner, layout, card["dtype"], _title(card))
        return layout
    own, more = (
        {name: tuple(x.shape) for name, x in _made(card, one).state_dict().items()}
        for one in (layout, ParameterLayout((*layout.names, "one more"), (*layout.shapes, (1,))))
    )
    for name, shape in own.items():
        if more.get(name) != shape:
            raise UsageError(
                f"{_title(card)}: {name} of rule {card['rule']['name']!r} has a value for each coordinate or"
                f" parameter of the learner it was trained on, shape {shape}, so it fits no other learner"
            )
    return other


def _require_fit(
    learner: BaseLearner | ParameterLayout, layout: ParameterLayout, dtype: str, who: str
) -> None:
    """UsageError, naming the first parameter that differs, unless the learner is of this layout and dtype."""
    other = learner.layout if isinstance(learner, BaseLearner) else learner
    wanted, given = (list(zip(one.names, one.shapes, strict=True)) for one in (layout, other))
    for index in range(max(len(wanted), len(given))):
        ours, theirs = (
            f"{one[index][0]!r} of shape {one[index][1]}" if index < len(one) else "none"
            for one in (wanted, given)
        )
        if ours != theirs:
            raise UsageError(
                f"{who}: parameter {index} is {ours}, and of the learner given {theirs}; give the learner it"
                " was trained on, or take the rule alone with transfer=True"
            )
    if isinstance(learner, BaseLearner) and str(learner.dtype) != f"torch.{dtype}":
        raise UsageError(
            f"{who}: it is in {dtype}, and the learner in {learner.dtype}; use"
            f" learner.to(learner.device, torch.{dtype})"
        )


def _made(card: Mapping[str, Any], layout: ParameterLayout) -> UpdateRule:
    """The rule that the card names, with φ as it is made; UsageError where that cannot be here."""
    told, who = card["rule"], f"{_title(card)}: rule {card['rule']['name']!r}"
    source = f"{told['distribution']} {told['version']}"
    if told["name"] not in rules():
        raise UsageError(f"{who} is not installed here; pip install {told['distribution']}")
    entry = rules()[told["name"]]
    if entry.distribution != told["distribution"]:
        raise UsageError(f"{who} is of {source}, and here of {entry.distribution}; install the one it is of")
    if told["api_version"] != UpdateRule.api_version:
        raise UsageError(
            f"{who} is of API {told['api_version']}, and this metalearn-core of {UpdateRule.api_version}"
        )
    try:
        with forked_rng(torch.Generator()):
            return make_rule(told["name"], layout, **told["options"])
    except UsageError as error:
        raise UsageError(f"{who} cannot be made with its options ({error}); it was of {source}") from error


def _rule_of(card: Mapping[str, Any], layout: ParameterLayout, phi: Mapping[str, Tensor]) -> UpdateRule:
    """The rule with its φ."""
    rule = _made(card, layout).to(getattr(torch, card["dtype"]))
    told, who = card["rule"], f"{_title(card)}: rule {card['rule']['name']!r}"
    here = installed_version(told["distribution"])
    own, kept = (
        {name: f"{list(x.shape)} of {x.dtype}" for name, x in held.items()}
        for held in (rule.state_dict(), phi)
    )
    for name in dict.fromkeys((*own, *kept)):
        if own.get(name) != kept.get(name):
            raise UsageError(
                f"{who}: {name} is {kept.get(name, 'missing')} in the artifact and"
                f" {own.get(name, 'missing')} as {told['distribution']} {here} makes it; it was of"
                f" {told['version']}"
            )
    if here != told["version"]:
        warnings.warn(
            f"{who} was trained with {told['distribution']} {told['version']}, here it is {here}",
            stacklevel=3,
        )
    rule.load_state_dict(dict(phi))
    return rule


def _learner_of(card: Mapping[str, Any]) -> BaseLearner:
    told = card["learner"]
    if told["name"] not in base_learners():
        raise UsageError(
            f"{_title(card)}: base-learner {told['name']!r} is not installed here; pip install"
            f" {told['distribution']}, or give the learner"
        )
    made: BaseLearner = base_learners()[told["name"]](**told["options"])
    return made.to("cpu", getattr(torch, card["dtype"]))
