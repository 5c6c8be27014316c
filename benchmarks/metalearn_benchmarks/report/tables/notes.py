"""What a reader of a result table must know first: a line for each thing, made from records. No torch."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from metalearn_benchmarks.experiments import catalogue
from metalearn_benchmarks.experiments.rows import UNDER_CONDITIONS
from metalearn_benchmarks.records.record import Record
from metalearn_core.errors import UsageError


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size_note(records: Iterable[Record]) -> list[str]:
    """Return a line where the runs of an experiment were trained for less than the paper's scale has."""
    trained = [r for r in records if r.cell["method"]["start"] in ("meta", "pretrained")]
    counts = [int(r.cell["method"]["settings"].get("tasks", 0)) for r in trained]
    scales = {str(r.cell.get("scale", "paper")) for r in trained}
    if not trained or (scales == {"paper"} and min(counts) >= _paper_tasks(trained[0].experiment)):
        return []
    where = f"scale {', '.join(sorted(scales))}" if scales != {"paper"} else "less than scale paper"
    return [f"{_count(min(counts), 'task')} of training, {where}: the order of the methods means little yet."]


@functools.cache
def _paper_tasks(experiment: str) -> int:
    """The training tasks of a shipped experiment at the paper's scale; 0 for any other experiment."""
    try:
        _, shipped = catalogue.find_experiment(experiment)
    except UsageError:
        return 0
    return int(shipped.scale["paper"].settings.get("tasks", 0)) if "paper" in shipped.scale else 0


def condition_notes(records: Iterable[Record]) -> list[str]:
    """Return a line for all rules that were trained under the conditions of the same method."""
    rules: dict[str, dict[str, None]] = {}
    for record in records:
        source = str(record.cell["method"].get("source", ""))
        if source.startswith(UNDER_CONDITIONS):
            rules.setdefault(source.removeprefix(UNDER_CONDITIONS), {})[record.title] = None
    return [
        f"{' and '.join(titles)}: trained as {method} is (clipping, T, outer learning rate, meta-batch)."
        for method, titles in rules.items()
    ]
