"""What a method is: a row of a results table. And how large an experiment is run: scales, and the default."""

from __future__ import annotations

from typing import Any, Literal

import attrs

BACKPROPAGATION = "backpropagation"
"""The outer gradient that every method has unless it names another."""


def at_least_1(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    """Raise ValueError unless the value is an integer of at least 1; a validator for attrs."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{attribute.name} must be an integer >= 1, got {value!r}")


@attrs.frozen
class Component:
    """Something that is installed under a name, with its options."""

    name: str
    options: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Method:
    """A row of a results table: how θ⁰ is obtained, and which rule adapts it.

    Args:
        title: Its name in reports.
        source: Where it was published.
        start: How θ⁰ is obtained. `"meta"`: by meta-training. `"pretrained"`: by training on the flat
            training data. Where that data has classes, all of them are told apart, and each task starts
            with a new head. `"random"`: not trained. `"pixels"`: there is no θ, and `rule` names
            a classifier that is fitted to the inputs of the support set.
        adapts: Whether all parameters adapt, or only the head, which is the last layer.
        rule: Name of the update rule.
        options: Options of the rule.
        settings: Fields of `metalearn_core.Settings`, over those of the experiment. For a method that is not
            meta-trained, `steps` is T at test.
        minibatch: Examples in a step of pretraining.
        learner: Options of the base-learner, over those of the experiment.
        meta_gradient: Name of the outer gradient of a method that is meta-trained.
        meta_gradient_options: Options of the outer gradient.
        protocol: Whether the method follows the text, or the authors' program: see `authors_protocol`.
    """

    title: str
    source: str = ""
    start: Literal["meta", "pretrained", "random", "pixels"]
    adapts: Literal["all", "head"] = "all"
    rule: str
    options: dict[str, Any] = attrs.field(factory=dict)
    settings: dict[str, Any] = attrs.field(factory=dict)
    minibatch: int = attrs.field(default=16, validator=at_least_1)
    learner: dict[str, Any] = attrs.field(factory=dict)
    meta_gradient: str = BACKPROPAGATION
    meta_gradient_options: dict[str, Any] = attrs.field(factory=dict)
    protocol: Literal["paper", "authors"] = "paper"

    def __attrs_post_init__(self) -> None:
        if self.start != "meta" and (self.meta_gradient != BACKPROPAGATION or self.meta_gradient_options):
            raise ValueError(
                f"meta_gradient: {self.title!r} is not meta-trained and has none: leave it out, or say"
                ' start = "meta"'
            )

    @property
    def trains(self) -> bool:
        """Whether anything is trained before the test."""
        return self.start in ("meta", "pretrained")


@attrs.frozen(kw_only=True)
class Scale:
    """How large an experiment is run.

    Args:
        seeds: Runs of each row.
        test_tasks: Tasks of each family that are tested on.
        settings: Fields of `metalearn_core.Settings`, over those of the experiment.
    """

    seeds: int = attrs.field(validator=at_least_1)
    test_tasks: int = attrs.field(validator=at_least_1)
    settings: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class DefaultRun:
    """What is run of an experiment where the command line names no scale.

    Args:
        scale: Name of the scale.
        seeds: Runs of each row; None for as many as the scale has.
        methods: Names of the methods; an empty list stands for all of the experiment.
    """

    scale: str = "small"
    seeds: int | None = attrs.field(default=None, validator=attrs.validators.optional(at_least_1))
    methods: list[str] = attrs.field(factory=list)
