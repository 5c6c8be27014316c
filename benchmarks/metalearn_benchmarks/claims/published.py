"""The paper's own numbers, and the places where this library departs from it. Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import attrs

PAPER_FOLDER = resources.files("metalearn_benchmarks.claims") / "paper"
TABLES = {"table-3-1": "Table 3.1", "table-3-4": "Table 3.4"}
SETTING = re.compile(
    r"(?P<train>.+?)(-to-(?P<inside>.+?))?-(?P<ways>\d+)-way-(?P<shots>\d+)-shot(-to-(?P<after>.+))?"
)
DOMAINS = {"miniimagenet": "miniImageNet", "cub": "CUB", "cub2002011": "CUB", "cub1403030": "CUB"}


UNPUBLISHED_SETTINGS = ("truncate", "outer_decay", "warm_up")
"""Settings of the outer loop that the paper does not have."""


@attrs.frozen
class PublishedResult:
    """A result in the paper.

    Args:
        value: the accuracy, a fraction.
        half_width: half of the 95 % interval.
        table: the table that has it.
    """

    value: float
    half_width: float
    table: str

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.half_width:.2f}"


@attrs.frozen(kw_only=True)
class Deviation:
    """A place where this library differs from the paper.

    Args:
        title: what differs, in a few words.
        paper: what the paper does.
        here: what this library does.
        why: the reason.
        methods: the methods that it matters for.
    """

    title: str
    paper: str
    here: str
    why: str
    methods: list[str]


@attrs.frozen
class SettingName:
    """What the name of a classification setting says.

    Args:
        train: the domain of the training tasks.
        test: the domain of the test tasks.
        ways: the number of classes of a task.
        shots: the number of support images of a class.
    """

    train: str
    test: str
    ways: int
    shots: int

    @property
    def domain(self) -> str:
        """The domain as the paper's tables name it, for example `miniImageNet to CUB`."""
        return self.train if self.train == self.test else f"{self.train} to {self.test}"


def parse_setting(setting: str) -> SettingName | None:
    """Parse the name of a classification setting.

    Args:
        setting: `family-N-way-K-shot`, with `-to-family` after the first family or at the end where another
            family is tested on.

    Returns:
        What the name says, or None where it has another form.
    """
    found = SETTING.fullmatch(setting)
    if found is None:
        return None
    train = _domain_name(found["train"])
    test = found["after"] or found["inside"]
    return SettingName(train, _domain_name(test) if test else train, int(found["ways"]), int(found["shots"]))


def _domain_name(name: str) -> str:
    """The paper's spelling of a data set's name; an unknown name stays as it is."""
    return DOMAINS.get(re.sub(r"[^a-z0-9]", "", name.lower()), name)


def trained_as_published(cell: Mapping[str, Any]) -> bool:
    """Whether a run's meta-gradient is the paper's: that of the loss after T steps, through all of them."""
    method = cell["method"]
    backpropagation = method.get("meta_gradient", "backpropagation") == "backpropagation"
    return backpropagation and all(method["settings"].get(key) is None for key in UNPUBLISHED_SETTINGS)


def published_result(setting: str, method: str) -> PublishedResult | None:
    """Return the paper's result of a method in a setting, or None where it has none.

    A method with an overridden option (`turtle,steps=10`) has no result in the paper.
    """
    name = parse_setting(setting)
    if name is None or name.ways != 5:
        return None
    column = f"{name.domain} {name.shots}-shot"
    for key, title in TABLES.items():
        table = _tables()[key]
        if column in table["columns"] and method in table and method != "columns":
            value, half_width = table[method][table["columns"].index(column)]
            return PublishedResult(value, half_width, title)
    return None


@cache
def _tables() -> Mapping[str, Any]:
    return tomllib.loads((PAPER_FOLDER / "tables.toml").read_text(encoding="utf-8"))


@cache
def deviations() -> tuple[Deviation, ...]:
    """Return every place where this library differs from the paper or from the authors' program."""
    data = tomllib.loads((PAPER_FOLDER / "deviations.toml").read_text(encoding="utf-8"))
    return tuple(Deviation(**entry) for entry in data["deviation"])
