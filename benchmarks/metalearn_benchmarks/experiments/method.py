"""What a method is: a row of a results table, as its TOML says it; and how large an experiment is run."""

from __future__ import annotations

from typing import Any, Literal

import attrs


def _at_least_1(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{attribute.name} must be an integer >= 1, got {value!r}")


@attrs.frozen
class Component:
    """Something installed, by name, with its options."""

    name: str
    options: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Method:
    """A row of a results table: how θ⁰ is obtained, and which rule adapts what of it.

    Args:
        start: θ⁰ is meta-trained, pretrained on the flat training data, or random. Where that data has
            classes, it is pretrained to tell all of them apart, and tasks start with a new head. `"pixels"`
            has no θ: `rule` names a classifier that is fitted to the support set's inputs as they are.
        adapts: all parameters, or the head (the last layer) alone.
        settings: fields of `metalearn_core.Settings`, over those of the experiment. Of a method that
            is not meta-trained, `steps` is T at test.
        minibatch: examples in a step of pretraining.
        learner: options of the base-learner, over those of the experiment.
        protocol: as the text has it, or as the authors' program does, see `program.py`.
    """

    title: str
    source: str = ""
    start: Literal["meta", "pretrained", "random", "pixels"]
    adapts: Literal["all", "head"] = "all"
    rule: str
    options: dict[str, Any] = attrs.field(factory=dict)
    settings: dict[str, Any] = attrs.field(factory=dict)
    minibatch: int = attrs.field(default=16, validator=_at_least_1)
    learner: dict[str, Any] = attrs.field(factory=dict)
    protocol: Literal["paper", "authors"] = "paper"

    @property
    def trains(self) -> bool:
        """Whether anything is trained before it is tested."""
        return self.start in ("meta", "pretrained")


@attrs.frozen(kw_only=True)
class Scale:
    """How large an experiment is run."""

    seeds: int = attrs.field(validator=_at_least_1)
    test_tasks: int = attrs.field(validator=_at_least_1)
    settings: dict[str, Any] = attrs.field(factory=dict)
