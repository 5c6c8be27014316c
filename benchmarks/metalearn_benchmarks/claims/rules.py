"""The rules in `paper/claims.toml` that decide the paper's claims, as objects."""

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


def nested_value(cell: dict[str, Any], key: str) -> Any:
    """Return the value under a dotted key of a run's `experiment.toml`, or None."""
    found: Any = cell
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _matches(cell: dict[str, Any], where: dict[str, Any]) -> bool:
    return all(nested_value(cell, key) == value for key, value in where.items())


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@attrs.frozen(kw_only=True)
class RowRule:
    """Which records belong to a method. `claims.toml` explains the fields."""

    title: str
    where: dict[str, Any]
    method: str | None = None
    run: str | None = None

    def fits(self, run: Record) -> bool:
        """Whether a record belongs to this method, run as the paper's text describes it."""
        as_published = run.result.get("protocol", "paper") == "paper" and trained_as_published(run.cell)
        return as_published and _matches(run.cell, self.where)


@attrs.frozen(kw_only=True)
class SettingRule:
    """Which records belong to a setting, and how large they must be. `claims.toml` explains the fields."""

    title: str
    family: list[str]
    where: dict[str, Any]
    least: dict[str, float]
    run: str
    tested_on: list[str] | None = None

    def fits(self, run: Record) -> bool:
        """Whether a record belongs to this setting, whatever its size."""
        name = _plain_name(str(nested_value(run.cell, "family.name")))
        trained = name in map(_plain_name, self.family) and _matches(run.cell, self.where)
        return trained and (self.tested_on is None or self.test_family(run) is not None)

    def test_family(self, run: Record) -> str | None:
        """Return the test family whose scores count here, or None for the family trained on."""
        wanted = [_plain_name(name) for name in self.tested_on or []]
        return next((family for family in run.result["scores"] if _plain_name(family) in wanted), None)

    def too_small(self, run: Record) -> str | None:
        """Say in words why a record is below the paper's scale; None where it is not."""
        for key, least in self.least.items():
            value = nested_value(run.cell, key)
            if not isinstance(value, int | float) or value < least:
                return f"{key} is {value}, at least {least:g} is asked for"
        return None


@attrs.frozen(kw_only=True)
class TestRule:
    """A comparison and the range that its effect must lie in. `claims.toml` explains the fields."""

    __test__ = False  # pytest must not collect this class

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
    def threshold(self) -> str:
        """The range that the effect must lie in, in words."""
        if math.isinf(self.most):
            return f"at least {self.least:g}"
        return f"at most {self.most:g}" if math.isinf(self.least) else f"{self.least:g} to {self.most:g}"


@attrs.frozen(kw_only=True)
class ClaimRule:
    """A claim of the paper, and the tests on records or the relation in the map of rules that decide it."""

    says: str
    source: str
    why: str
    test: list[TestRule] = attrs.field(factory=list)
    map: dict[str, str] = attrs.field(factory=dict)
    held_by: str = ""


@attrs.frozen(kw_only=True)
class Rules:
    """The contents of `claims.toml`."""

    confidence: float
    row: dict[str, RowRule]
    setting: dict[str, SettingRule]
    claim: dict[str, ClaimRule]


def claim_rules(text: str | None = None) -> Rules:
    """Return the shipped rules, or those of a text in the same format.

    Args:
        text: TOML in the format of `claims.toml`; None for the shipped file.

    Raises:
        ValueError: a claim names a row or a setting that is not there, or a test contradicts itself.
        cattrs.BaseValidationError: a key is misspelt or a value has the wrong type.
    """
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
