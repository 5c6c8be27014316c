"""What a method is, a row of a results table; and how an experiment is run: scales, test tasks, defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from metalearn_core.errors import UsageError, unknown

BACKPROPAGATION = "backpropagation"
"""The outer gradient that every method has unless it names another."""
STEPS = "steps"
OPTIONS = ("ways", "shots", "queries", "support", "query")
"""Options of a family that test tasks may have of their own."""


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


@attrs.frozen
class TasksAtTest:
    """What test tasks have of their own.

    Args:
        options: Options of the family at test.
        steps: T at validation and test of what is meta-trained; None for that of the method.
    """

    options: dict[str, int] = attrs.field(factory=dict)
    steps: int | None = None

    @classmethod
    def read(cls, table: Any, _: object = None) -> TasksAtTest:
        """Parse the table `[test]`; this is the structure hook of the class.

        Raises:
            TypeError: It is no table, or a value is no integer of at least 1; T may be 0.
            ValueError: A key is unknown.
        """
        if not isinstance(table, dict):
            raise TypeError(f"expected a table, got {table!r}")
        for key, value in table.items():
            if key not in (*OPTIONS, STEPS):
                raise unknown("key", f"test.{key}", [f"test.{one}" for one in (*OPTIONS, STEPS)])
            least = int(key != STEPS)
            if type(value) is not int or value < least:
                raise TypeError(f"{key} must be an integer >= {least}, got {value!r}")
        return cls({key: value for key, value in table.items() if key != STEPS}, table.get(STEPS))

    def of_family(self, family: Component) -> dict[str, int]:
        """Return the options that tasks of a family have at test; shots may be called `support` there.

        Raises:
            UsageError: The family is not said to have such an option.
        """
        found: dict[str, int] = {}
        for key, value in self.options.items():
            name = "support" if key == "shots" and "shots" not in family.options else key
            if name not in family.options:
                raise UsageError(
                    f"key 'test.{key}': [family] options say no {name} of family {family.name!r}; say there"
                    " what training tasks have"
                )
            found[name] = value
        return found

    def of_method(self, method: Method) -> Method:
        """Return a method with its T at test; what is not meta-trained keeps its own."""
        if self.steps is None or method.start != "meta":
            return method
        return attrs.evolve(method, settings={**method.settings, "test_steps": self.steps})

    def as_changes(self) -> Mapping[str, int]:
        """Return what the name of a setting says of it."""
        return {f"test-{key}": value for key, value in self.options.items()}
