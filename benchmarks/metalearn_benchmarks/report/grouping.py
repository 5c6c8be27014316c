"""How records are grouped for the report: by method, by T, and by the family they were tested on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import attrs

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.records.row_names import overrides_steps


def runs_by_method(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Return the title and the runs of each method.

    Args:
        records: the runs of one setting, all runs of a method next to each other.

    Returns:
        A pair for each method. A title that two methods share has the method's name added.
    """
    groups = [list(group) for _, group in groupby(records, lambda r: r.method)]
    count = Counter(runs[0].title for runs in groups)
    return [
        (title if count[title] == 1 else f"{title}, {runs[0].method}", runs)
        for runs in groups
        for title in (runs[0].title,)
    ]


def steps_of_groups(records: Sequence[Record]) -> dict[str, int]:
    """Return the T at which each method of a setting is compared.

    Where T is an axis of the experiment, methods are compared at each T alone. A method with a T of its own,
    beside others that keep theirs, is compared with them.

    Args:
        records: the runs of one setting.
    """
    of_method = {record.method: record for record in records}
    varied = set(filter(overrides_steps, of_method))
    kept = Counter(record.steps for name, record in of_method.items() if name not in varied)
    usual = kept.most_common(1)[0][0] if kept else 0
    return {name: record.steps if name in varied else usual for name, record in of_method.items()}


def cross_family_records(records: Sequence[Record]) -> list[Record]:
    """Return records of the scores on other families than the one trained on.

    Each of these families becomes a setting of its own, named `<setting>-to-<family>`.
    """
    views = []
    for record in records:
        own = record.cell["family"]["name"]
        for name, scores in record.result["scores"].items():
            if name != own and len(scores):
                cell = dict(record.cell, setting=f"{record.setting}-to-{name}")
                cell["family"] = dict(record.cell["family"], name=name)
                # learning curves and what the rule does belong to the family trained on
                result = dict(record.result, validations=[], curves=None, rule_response=None)
                views.append(attrs.evolve(record, cell=cell, result=result))
    return sorted(views, key=lambda r: (r.experiment, r.setting, r.method, r.seed))
