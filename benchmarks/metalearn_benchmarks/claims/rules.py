"""The written rules that decide the paper's claims: what `paper/claims.toml` says, as objects."""

from __future__ import annotations

import math
import re
import tomllib
from importlib import resources
from typing import Any, Literal

import attrs
import cattrs

from metalearn_benchmarks.claims.published import trained_as_published
from metalearn_benchmarks.records.record import Record


def value_at(cell: dict[str, Any], key: str) -> Any:
    """What a run's `experiment.toml` says under a dotted key, or None."""
    found: Any = cell
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _fits(cell: dict[str, Any], where: dict[str, Any]) -> bool:
    return all(value_at(cell, key) == value for key, value in where.items())


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@attrs.frozen(kw_only=True)
class RowRule:
    """Which records are of a method. Arguments: see `claims.toml`."""

    title: str
    where: dict[str, Any]
    method: str | None = None
    run: str | None = None

    def fits(self, run: Record) -> bool:
        """Whether a record is of this method, as the text has it."""
        of_the_text = run.result.get("protocol", "paper") == "paper" and trained_as_published(run.cell)
        return of_the_text and _fits(run.cell, self.where)


@attrs.frozen(kw_only=True)
class SettingRule:
    """Which records are of a family of tasks, and how large they must be. Arguments: see `claims.toml`."""

    title: str
    family: list[str]
    where: dict[str, Any]
    least: dict[str, float]
    run: str
    tested_on: list[str] | None = None

    def fits(self, run: Record) -> bool:
        """Whether a record is of this setting, whatever its size."""
        name = _plain(str(value_at(run.cell, "family.name")))
        trained = name in map(_plain, self.family) and _fits(run.cell, self.where)
        return trained and (self.tested_on is None or self.tests(run) is not None)

    def tests(self, run: Record) -> str | None:
        """The family of a record's scores that count here; None: the one that it was trained on."""
        wanted = [_plain(name) for name in self.tested_on or []]
        return next((family for family in run.result["scores"] if _plain(family) in wanted), None)

    def too_small(self, run: Record) -> str | None:
        """By what a record is too small to speak of the paper's scale, in words."""
        for key, least in self.least.items():
            value = value_at(run.cell, key)
            if not isinstance(value, int | float) or value < least:
                return f"{key} is {value}, at least {least:g} is asked for"
        return None


@attrs.frozen(kw_only=True)
class TestRule:
    """A comparison that must come out in a certain way. Arguments: see `claims.toml`."""

    __test__ = False  # pytest: this is none of yours

    measure: Literal["difference", "ratio", "seconds", "spread"]
    settings: list[str]
    seeds: int
    of: list[str] = attrs.field(factory=list)
    each: list[str] = attrs.field(factory=list)
    against: list[str] = attrs.field(factory=list)
    steps: list[int] = attrs.field(factory=list)
    statistic: Literal["mean", "typical"] = "mean"
    than_steps: int | None = None
    than_settings: list[str] = attrs.field(factory=list)
    at_least: int | None = None
    least: float = -math.inf
    most: float = math.inf

    def __attrs_post_init__(self) -> None:
        if bool(self.of) == bool(self.each):
            raise ValueError("a test has either `of` or `each`")
        ways = bool(self.against) + (self.than_steps is not None) + bool(self.than_settings)
        if ways != (self.measure != "spread"):
            raise ValueError(
                "a test has one of `against`, `than_steps` and `than_settings`; `spread` has none"
            )
        if self.than_settings and len(self.than_settings) != len(self.settings):
            raise ValueError("`than_settings` has one for each of `settings`")
        if self.measure == "spread" and (len(self.steps) < 2 or self.of):
            raise ValueError("`spread` needs two `steps` or more, and is of `each`")
        if self.statistic == "typical" and (
            self.than_settings or self.measure not in ("difference", "ratio")
        ):
            raise ValueError("`typical` is of a difference or a ratio on the same tasks")
        if not self.least < self.most or (math.isinf(self.least) and math.isinf(self.most)):
            raise ValueError("a test has `least`, or `most`, or least < most")

    @property
    def asked(self) -> str:
        """The threshold, in words."""
        if math.isinf(self.most):
            return f"at least {self.least:g}"
        return f"at most {self.most:g}" if math.isinf(self.least) else f"{self.least:g} to {self.most:g}"


@attrs.frozen(kw_only=True)
class ClaimRule:
    """A claim of the paper and what decides it: tests on records, or the map of rules."""

    says: str
    source: str
    why: str
    test: list[TestRule] = attrs.field(factory=list)
    map: dict[str, str] = attrs.field(factory=dict)
    held_by: str = ""


@attrs.frozen(kw_only=True)
class Rules:
    """All of `claims.toml`."""

    confidence: float
    row: dict[str, RowRule]
    setting: dict[str, SettingRule]
    claim: dict[str, ClaimRule]


def claim_rules(text: str | None = None) -> Rules:
    """The shipped rules, or those of a text in the same form; what it misspells is an exception."""
    if text is None:
        text = (resources.files("metalearn_benchmarks.claims") / "paper/claims.toml").read_text("utf-8")
    converter = cattrs.Converter(forbid_extra_keys=True)
    rules = converter.structure(tomllib.loads(text), Rules)
    for name, claim in rules.claim.items():
        for test in claim.test:
            for row in (*test.of, *test.each, *test.against):
                if row not in rules.row:
                    raise ValueError(f"claim {name!r}: there is no row {row!r}")
            for setting in (*test.settings, *test.than_settings):
                if setting not in rules.setting:
                    raise ValueError(f"claim {name!r}: there is no setting {setting!r}")
    return rules
