"""The protocol of a setting: what all runs share is listed once, what differs beside each seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import attrs

from metalearn_benchmarks.records.files import EXPERIMENT, RESULT
from metalearn_benchmarks.records.record import Record

RESULT_KEYS = {
    "scores", "summary", "validations", "curves", "rule_response", "format", "by_step", "archived", "crc32",
}  # fmt: skip
"""The keys of `result.json` that are results and not protocol."""
MAX_VALUE_LENGTH = 400
"""The most characters of a value on the page; the record has all."""
FIRST_COLUMNS = ("seed", "seconds", "peak memory", "best position", "diverged")
"""The columns that come first in the table of seeds, where it has them."""

Facts = dict[str, str]
"""What a run's numbers depend on: a text by dotted name."""


@attrs.frozen
class MethodProtocol:
    """The protocol of the runs of one method.

    Args:
        method: the name of the method.
        title: its title.
        common: what all its runs share.
        columns: the names of what differs between its runs.
        rows: the values of these columns for each run.
    """

    method: str
    title: str
    common: Facts
    columns: list[str]
    rows: list[list[str]]


@attrs.frozen
class SettingProtocol:
    """The protocol of a setting.

    Args:
        common: what all runs of the setting share.
        methods: the protocol of each method.
    """

    common: Facts
    methods: list[MethodProtocol]


def setting_protocol(records: Sequence[Record]) -> SettingProtocol:
    """Collect everything that the numbers of one setting depend on.

    Args:
        records: the runs of the setting, all runs of a method next to each other.
    """
    facts_of = {id(record): run_facts(record) for record in records}
    common = _common_facts(list(facts_of.values()))
    methods = []
    for method, group in groupby(records, lambda r: r.method):
        runs = list(group)
        own = [{k: v for k, v in facts_of[id(run)].items() if k not in common} for run in runs]
        shared = _common_facts(own)
        differ = list(dict.fromkeys(key for facts in own for key in facts if key not in shared))
        differ.sort(key=lambda key: FIRST_COLUMNS.index(key) if key in FIRST_COLUMNS else len(FIRST_COLUMNS))
        rows = [[facts.get(key, "") for key in differ] for facts in own]
        methods.append(MethodProtocol(method, runs[0].title, shared, differ, rows))
    return SettingProtocol(common, methods)


def run_facts(record: Record) -> Facts:
    """Return what one run's numbers depend on: its options, and the conditions that it ran under."""
    found: dict[str, Any] = {"seed": record.seed, "folder": "/".join(record.folder.parts[-4:])}
    for name in (RESULT, EXPERIMENT):
        path = record.folder / name
        if path.is_file():
            found[f"SHA-256 of {name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if (archived := record.result.get("archived")) is not None:
        found[f"SHA-256 of {RESULT}"] = archived["sha256"]
    result = {key: value for key, value in record.result.items() if key not in RESULT_KEYS}
    named = {key.replace("_", " "): value for key, value in result.items()}
    if isinstance(named.get("peak memory bytes"), int | float):
        named["peak memory"] = f"{named.pop('peak memory bytes') / 2**20:.0f} MiB"
    if isinstance(named.get("seconds"), int | float):
        named["seconds"] = f"{named['seconds']:.1f}"
    named.setdefault("batch norm", "not recorded")
    recorded = {**_flatten(named), **found}
    # an option that the result repeats is listed once
    options = {
        key: value for key, value in _flatten(record.cell).items() if key.replace("_", " ") not in recorded
    }
    return {key: _text(value) for key, value in {**recorded, **_clipping_facts(record), **options}.items()}


def _clipping_facts(record: Record) -> dict[str, str]:
    """The absence of clipping, which TOML leaves out, as an explicit `none`."""
    settings = record.cell["method"].get("settings", {})
    names = ("inner_clip", "outer_clip")
    return {f"method.settings.{name}": "none" for name in names if name not in settings}


def _flatten(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{path}.{key}".lstrip(".")
        flat |= _flatten(inner, name) if isinstance(inner, dict) and inner else {name: inner}
    return flat


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) > 2 and value == list(range(len(value))):
        return f"0 to {len(value) - 1}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = {"null": "none", "{}": "none"}.get(text, text)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]} …"


def _common_facts(all_facts: Sequence[Facts]) -> Facts:
    """The facts that all have in common, without the seed."""
    first, *others = all_facts
    return {k: v for k, v in first.items() if k != "seed" and all(other.get(k) == v for other in others)}
