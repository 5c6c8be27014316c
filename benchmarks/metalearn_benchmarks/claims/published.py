"""The paper's own numbers, and where this library departs from it: data by name. Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import attrs

FOLDER = resources.files("metalearn_benchmarks.claims") / "paper"
TABLES = {"table-3-1": "Table 3.1", "table-3-4": "Table 3.4"}
SETTING = re.compile(
    r"(?P<train>.+?)(-to-(?P<inside>.+?))?-(?P<ways>\d+)-way-(?P<shots>\d+)-shot(-to-(?P<after>.+))?"
)
DOMAINS = {"miniimagenet": "miniImageNet", "cub": "CUB", "cub2002011": "CUB", "cub1403030": "CUB"}


BEYOND = ("truncate", "outer_decay", "warm_up")
"""Settings that the paper does not have."""


@attrs.frozen
class Published:
    """A number of the paper: a fraction, its 95 % half-width, and where it stands."""

    value: float
    half_width: float
    table: str

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.half_width:.2f}"


@attrs.frozen(kw_only=True)
class Deviation:
    """What the paper does, what is done here, why, and the methods for which it matters."""

    title: str
    paper: str
    here: str
    why: str
    methods: list[str]


@attrs.frozen
class Place:
    """What a setting's name says: the domains trained and tested on, ways and shots."""

    train: str
    test: str
    ways: int
    shots: int

    @property
    def domain(self) -> str:
        """Where training and test are."""
        return self.train if self.train == self.test else f"{self.train} to {self.test}"


def place(setting: str) -> Place | None:
    """`family-N-way-K-shot`, with `-to-family` after the first or at the end; None for another name."""
    found = SETTING.fullmatch(setting)
    if found is None:
        return None
    train = _domain(found["train"])
    test = found["after"] or found["inside"]
    return Place(train, _domain(test) if test else train, int(found["ways"]), int(found["shots"]))


def _domain(name: str) -> str:
    """The paper's name of a data set, however it is spelt; any other stays as it is."""
    return DOMAINS.get(re.sub(r"[^a-z0-9]", "", name.lower()), name)


def trained_as_published(cell: Mapping[str, Any]) -> bool:
    """Whether a run's meta-gradient is the paper's: of the loss after T steps, through all of them."""
    return all(cell["method"]["settings"].get(key) is None for key in BEYOND)


def published(setting: str, method: str) -> Published | None:
    """The paper's number of a method, by both names; None where it has none.

    A method with anything overridden in it (`turtle,steps=10`) is not the paper's row.
    """
    where = place(setting)
    if where is None or where.ways != 5:
        return None
    column = f"{where.domain} {where.shots}-shot"
    for key, title in TABLES.items():
        table = _tables()[key]
        if column in table["columns"] and method in table and method != "columns":
            value, half_width = table[method][table["columns"].index(column)]
            return Published(value, half_width, title)
    return None


@cache
def _tables() -> Mapping[str, Any]:
    return tomllib.loads((FOLDER / "tables.toml").read_text(encoding="utf-8"))


@cache
def deviations() -> tuple[Deviation, ...]:
    """Every place where this library and the paper, or the authors' program, part."""
    data = tomllib.loads((FOLDER / "deviations.toml").read_text(encoding="utf-8"))
    return tuple(Deviation(**entry) for entry in data["deviation"])
