"""Under what the runs of a report were made, in a line: scale, sizes, machine, date."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from metalearn_benchmarks.records.files import RESULT
from metalearn_benchmarks.records.record import Record


def conditions(records: Sequence[Record]) -> list[str]:
    """Return the parts of the line below a report's opening."""
    if not records:
        return []
    tasks = {record.cell["method"]["settings"].get("tasks") for record in records}
    tests = {len(record.final) for record in records}
    parts = [
        f"scale {_listed(str(record.cell.get('scale', 'of its own')) for record in records)}",
        f"{_range(tasks)} meta-training tasks",
        f"{_range(tests)} test tasks",
        f"run on {_listed(str(record.result.get('device', 'a machine not recorded')) for record in records)}",
    ]
    torch = {str((record.result.get("versions") or {}).get("torch", "")) for record in records} - {""}
    if torch:
        parts.append(f"torch {_listed(torch)}")
    date = _dates(records)
    return [*parts, date] if date else parts


def _dates(records: Sequence[Record]) -> str:
    """The days on which results were written; archives do not keep them."""
    files = (record.folder / RESULT for record in records)
    times = [file.stat().st_mtime for file in files if file.is_file()]
    if not times:
        return ""
    days = [datetime.datetime.fromtimestamp(at, datetime.UTC).date().isoformat() for at in times]
    first, last = min(days), max(days)
    return f"finished {first}" if first == last else f"finished {first} to {last}"


def _range(values: Iterable[int | None]) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "no"
    return f"{known[0]:,}" if known[0] == known[-1] else f"{known[0]:,} to {known[-1]:,}"


def _listed(values: Iterable[str]) -> str:
    found = sorted(set(values))
    return ", ".join(found) if len(found) <= 3 else f"{', '.join(found[:3])} and {len(found) - 3} more"
