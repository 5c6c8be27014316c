"""The protocol of many runs: what they share is said once, what is a run's own beside its seed. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import attrs

from metalearn_benchmarks.records.files import EXPERIMENT, RESULT
from metalearn_benchmarks.records.record import Record

NOT_PROTOCOL = {
    "scores", "summary", "validations", "curves", "rule_response", "format", "by_step", "archived", "crc32",
}  # fmt: skip
"""Keys of a result that are results: numbers of the tables and the figures."""
LONGEST = 400
"""Characters of a value on the page; the record has the rest."""
FIRST = ("seed", "seconds", "peak memory", "best position", "diverged")
"""Columns of the seeds' table, where they are in it, before all others."""

Facts = dict[str, str]


@attrs.frozen
class Runs:
    """The runs of one method: what they have in common, and a row of what differs for each."""

    method: str
    title: str
    common: Facts
    columns: list[str]
    rows: list[list[str]]


@attrs.frozen
class Protocol:
    """Of a setting: what all its runs have in common, then its methods."""

    common: Facts
    methods: list[Runs]


def protocol(records: Sequence[Record]) -> Protocol:
    """All that the numbers of one setting depend on; records come method by method."""
    of_run = {id(record): facts(record) for record in records}
    common = _shared(list(of_run.values()))
    methods = []
    for method, group in groupby(records, lambda r: r.method):
        runs = list(group)
        own = [{k: v for k, v in of_run[id(run)].items() if k not in common} for run in runs]
        shared = _shared(own)
        differ = list(dict.fromkeys(key for of_one in own for key in of_one if key not in shared))
        differ.sort(key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))
        rows = [[of_one.get(key, "") for key in differ] for of_one in own]
        methods.append(Runs(method, runs[0].title, shared, differ, rows))
    return Protocol(common, methods)


def facts(record: Record) -> Facts:
    """Everything that one run's numbers depend on, by dotted name: asked for, and found when it ran."""
    found: dict[str, Any] = {"seed": record.seed, "folder": "/".join(record.folder.parts[-4:])}
    for name in (RESULT, EXPERIMENT):
        path = record.folder / name
        if path.is_file():
            found[f"SHA-256 of {name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if (kept := record.result.get("archived")) is not None:
        found[f"SHA-256 of {RESULT}"] = kept["sha256"]
    result = {key: value for key, value in record.result.items() if key not in NOT_PROTOCOL}
    named = {key.replace("_", " "): value for key, value in result.items()}
    if isinstance(named.get("peak memory bytes"), int | float):
        named["peak memory"] = f"{named.pop('peak memory bytes') / 2**20:.0f} MiB"
    if isinstance(named.get("seconds"), int | float):
        named["seconds"] = f"{named['seconds']:.1f}"
    named.setdefault("batch norm", "not recorded")
    told = {**_flat(named), **found}
    # what was asked for and then happened is said once
    asked = {key: value for key, value in _flat(record.cell).items() if key.replace("_", " ") not in told}
    return {key: _text(value) for key, value in {**told, **_clipping(record), **asked}.items()}


def _clipping(record: Record) -> dict[str, str]:
    """No clipping is said as well: TOML leaves out what is not there."""
    settings = record.cell["method"].get("settings", {})
    names = ("inner_clip", "outer_clip")
    return {f"method.settings.{name}": "none" for name in names if name not in settings}


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{path}.{key}".lstrip(".")
        flat |= _flat(inner, name) if isinstance(inner, dict) and inner else {name: inner}
    return flat


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) > 2 and value == list(range(len(value))):
        return f"0 to {len(value) - 1}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = {"null": "none", "{}": "none"}.get(text, text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _shared(all_facts: Sequence[Facts]) -> Facts:
    """What is in all of them, and the same; a seed is a run's own, also where there is one run."""
    first, *others = all_facts
    return {k: v for k, v in first.items() if k != "seed" and all(other.get(k) == v for other in others)}
