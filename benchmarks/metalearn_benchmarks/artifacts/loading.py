"""Loading a trained rule from an artifact."""

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
from metalearn_benchmarks.artifacts.zoo import shipped_folder, zoo
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

FROM_WHOM = "get that from whom you have the artifact from, not from an index by its name alone"
"""A stranger may have written the card, and may hold the name on an index."""
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
"""What the parameters of a learner may be of."""


@attrs.frozen(eq=False)
class Artifact:
    """A trained rule and its initialisation.

    Args:
        rule: The rule with its φ, in the dtype it was trained in, on the CPU.
        theta: θ⁰, `[n]`; None where the rule was loaded for another layout than its own.
        layout: The layout of θ⁰, or the one that the rule was loaded for.
        steps: T, the number of inner steps at test.
        clip: The clipping of the gradients that the rule sees, as in training.
        card: The content of `card.json`.
    """

    rule: UpdateRule
    theta: Tensor | None
    layout: ParameterLayout
    steps: int
    clip: Clipping | None
    card: dict[str, Any]

    def start(self, learner: BaseLearner | None = None) -> tuple[BaseLearner, Tensor]:
        """Return the learner and the θ that `rule` adapts: all of θ⁰ or what its method leaves free.

        Args:
            learner: A learner of the artifact's layout and dtype; by default the one it was trained on.

        Raises:
            UsageError: The learner is not installed or does not fit, or there is no θ⁰.
        """
        if self.theta is None:
            raise UsageError("artifact: it was loaded for another layout, so there is no θ⁰; draw one")
        learner = learner or _make_learner(self.card)
        _require_fit(learner, self.layout, self.card["dtype"], _title(self.card))
        theta = self.theta.to(learner.device)
        return Head(learner).freeze_body(theta) if self.card["adapts"] == "head" else (learner, theta)


def load_rule(
    path: Path | str, learner: BaseLearner | ParameterLayout | None = None, *, transfer: bool = False
) -> Artifact:
    """Load the trained rule and θ⁰ of an artifact that `metalearn export` has written.

    Args:
        path: The folder of the artifact, or one of its two files. Nothing in them is run. Or the name of
            a trained rule that is shipped, as `metalearn zoo list` has it, where there is no such folder.
        learner: The learner to use it with. Another layout or dtype than in training is refused.
        transfer: Take the rule alone to the learner's layout, whatever that is. The rule's φ must not
            depend on the layout.

    Returns:
        An `Artifact`: `adapt(artifact.rule, *artifact.start(), support, steps=artifact.steps)`.

    Raises:
        UsageError: A file is missing, changed or of another format; a plugin is not installed, or makes
            another rule of the same options; or the learner does not fit.
    """
    if not isinstance(path, Path | str):
        raise UsageError(f"load_rule: path must be a Path or a str, got a {type(path).__name__}")
    if not isinstance(learner, BaseLearner | ParameterLayout | None):
        raise UsageError(
            f"load_rule: learner must be a BaseLearner or a ParameterLayout, got a {type(learner).__name__}"
        )
    path = _folder_of(path)
    folder = path.parent if path.name in (CARD, TENSORS) else path
    card, tensors = read_artifact(folder)
    try:
        _require_plain(card, tensors)
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
        rule = _load_trained(card, for_rule, phi)
        flat = layout.flatten(theta) if used == layout else None
        return Artifact(rule, flat, used, steps, None if clip is None else Clipping(**clip), card)
    except UsageError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder / CARD}: not as format {FORMAT} has it ({error!r})") from error


def _folder_of(path: Path | str) -> Path:
    """The path of an artifact, or of the one that is shipped under this name."""
    is_name = isinstance(path, str) and path in zoo() and not Path(path).exists()
    return shipped_folder(str(path)) if is_name else Path(path)


def _require_plain(card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """UsageError for an unknown dtype, a T that is no number of steps, and weights that are not finite."""
    who, dtype, steps = _title(card), card["dtype"], card["adaptation"]["steps"]
    if dtype not in DTYPES:
        raise UsageError(f"{who}: its dtype is {dtype!r:.60}; there are {', '.join(DTYPES)}")
    if type(steps) is not int or steps < 0:
        raise UsageError(f"{who}: steps must be an integer >= 0, got {steps!r:.60}")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"{who}: {name} holds a NaN or an infinity; export another run")


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
        {name: tuple(x.shape) for name, x in _make_untrained(card, one).state_dict().items()}
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


def _make_untrained(card: Mapping[str, Any], layout: ParameterLayout) -> UpdateRule:
    """The rule that the card names, with φ as it is made; UsageError where that cannot be here."""
    origin, who = card["rule"], f"{_title(card)}: rule {card['rule']['name']!r}"
    source = f"{origin['distribution']} {origin['version']}"
    if origin["name"] not in rules():
        raise UsageError(f"{who} is not installed here; its card says {source}: {FROM_WHOM}")
    entry = rules()[origin["name"]]
    if entry.distribution != origin["distribution"]:
        raise UsageError(f"{who} is of {source}, and here of {entry.distribution}; install the one it is of")
    if origin["api_version"] != UpdateRule.api_version:
        raise UsageError(
            f"{who} is of API {origin['api_version']}, and this metalearn-core of {UpdateRule.api_version}"
        )
    try:
        with forked_rng(torch.Generator()):
            return make_rule(origin["name"], layout, **origin["options"])
    except UsageError as error:
        raise UsageError(f"{who} cannot be made with its options ({error}); it was of {source}") from error


def _load_trained(card: Mapping[str, Any], layout: ParameterLayout, phi: Mapping[str, Tensor]) -> UpdateRule:
    """The rule with its φ."""
    rule = _make_untrained(card, layout).to(getattr(torch, card["dtype"]))
    origin, who = card["rule"], f"{_title(card)}: rule {card['rule']['name']!r}"
    here = installed_version(origin["distribution"])
    own, stored = (
        {name: f"{list(x.shape)} of {x.dtype}" for name, x in held.items()}
        for held in (rule.state_dict(), phi)
    )
    for name in dict.fromkeys((*own, *stored)):
        if own.get(name) != stored.get(name):
            raise UsageError(
                f"{who}: {name} is {stored.get(name, 'missing')} in the artifact and"
                f" {own.get(name, 'missing')} as {origin['distribution']} {here} makes it; it was of"
                f" {origin['version']}"
            )
    if here != origin["version"]:
        warnings.warn(
            f"{who} was trained with {origin['distribution']} {origin['version']}, here it is {here}",
            stacklevel=3,
        )
    rule.load_state_dict(dict(phi))
    return rule


def _make_learner(card: Mapping[str, Any]) -> BaseLearner:
    origin = card["learner"]
    if origin["name"] not in base_learners():
        raise UsageError(
            f"{_title(card)}: base-learner {origin['name']!r} is not installed here; its card says"
            f" {origin['distribution']}: give the learner, or {FROM_WHOM}"
        )
    made: BaseLearner = base_learners()[origin["name"]](**origin["options"])
    return made.to("cpu", getattr(torch, card["dtype"]))
