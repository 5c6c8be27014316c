"""Find the records of a claim's method in a setting, and say what is missing."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Any

import attrs

from metalearn_benchmarks.claims.rules import RowRule, SettingRule, nested_value
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.paired_scores import MethodScores
from metalearn_core.errors import UsageError


@attrs.frozen(eq=False)
class Evidence:
    """The runs of a method in a setting.

    Args:
        method: the method, in words.
        place: the setting and T, in words.
        runs: the runs; empty where `missing` says why none can be used.
        scores: their scores; None where there are none.
        missing: a line for each thing that is missing, with what would supply it.
        command: the command that makes more runs, without the number of seeds.
    """

    method: str
    place: str
    runs: list[Record]
    scores: MethodScores | None
    missing: tuple[str, ...]
    command: str

    @property
    def title(self) -> str:
        """The method, the setting and T, in words."""
        return f"{self.method} {self.place}"


@attrs.define
class EvidenceFinder:
    """Finds the runs of methods in records, and remembers what it has found."""

    records: Sequence[Record]
    _cache: dict[Hashable, Evidence] = attrs.field(factory=dict)

    def find(self, row: RowRule, setting: SettingRule, steps: int | None) -> Evidence:
        """Return the runs of a method in a setting; with T = `steps`, unless that is None."""
        key = (row.title, setting.title, steps)
        if key not in self._cache:
            self._cache[key] = _collect_evidence(self.records, row, setting, steps)
        return self._cache[key]


def _collect_evidence(
    records: Sequence[Record], row: RowRule, setting: SettingRule, steps: int | None
) -> Evidence:
    place = f"on {setting.title}" + ("" if steps is None else f" with T = {steps}")
    where = f"{row.title} {place}"
    command = _command(row, setting, steps)
    fitting = [
        run
        for run in records
        if row.fits(run) and setting.fits(run) and (steps is None or _inner_steps(run) == steps)
    ]
    large = [run for run in fitting if setting.too_small(run) is None]
    if not large:
        lack = f"no records of {where}; run `{command}`"
        if fitting:
            lack = (
                f"the {len(fitting)} record(s) of {where} are too small ({setting.too_small(fitting[0])});"
                f" run `{command}`"
            )
        return Evidence(row.title, place, [], None, (lack,), command)
    runs, names = _one_method(large, row)
    if not runs:
        lack = f"several methods are {where}: {', '.join(names)}; take all but one out of DIR"
        return Evidence(row.title, place, [], None, (lack,), command)
    try:
        scores = MethodScores.from_runs(runs, setting.test_family(runs[0]))
    except UsageError as error:
        return Evidence(row.title, place, [], None, (str(error),), command)
    return Evidence(row.title, place, runs, scores, (), command)


def _command(row: RowRule, setting: SettingRule, steps: int | None) -> str:
    """The command that runs it at the paper's scale."""
    words = ["metalearn run", row.run or setting.run, "--scale paper"]
    if row.run is None and row.method is not None:
        words.append(f"-m {row.method}")
        words += [] if steps is None else [f"--steps {steps}"]
    return " ".join(words)


def _inner_steps(run: Record) -> Any:
    """T, where training and test use the same; otherwise None."""
    trained = nested_value(run.cell, "method.settings.steps")
    return trained if nested_value(run.cell, "method.settings.test_steps") in (None, trained) else None


def _one_method(runs: list[Record], row: RowRule) -> tuple[list[Record], list[str]]:
    """The runs of one method, and the names of all methods that fit.

    Where the same method is in several experiments, the one with most seeds is used. Where different methods
    fit, the one with the row's own name is used, or none where no method has it.
    """
    groups = [list(group) for _, group in groupby(runs, lambda r: (r.experiment, r.setting, r.method))]
    groups.sort(key=lambda group: (-len(group), group[0].experiment, group[0].setting))
    contents = [_method_content(group[0]) for group in groups]
    names = sorted({group[0].method for group in groups})
    if any(content != contents[0] for content in contents):
        groups = [group for group in groups if _name_without_steps(group[0].method) == row.method]
        contents = [_method_content(group[0]) for group in groups]
        if not groups or any(content != contents[0] for content in contents):
            return [], names
    return groups[0], names


def _name_without_steps(name: str) -> str:
    """A row's name without the `steps` that it overrides."""
    return re.sub(r",steps=\d+(?=,|$)", "", name)


def _method_content(run: Record) -> dict[str, Any]:
    """What a run's numbers depend on, except for its seed, its size and the machine."""
    method = {key: value for key, value in run.cell["method"].items() if key not in ("title", "source")}
    method["settings"] = {k: v for k, v in method["settings"].items() if k not in ("engine", "tasks_at_once")}
    family, learner = run.cell["family"], run.cell.get("learner")
    tested = run.cell.get("test_tasks")
    protocol = run.result.get("protocol")
    return {"m": method, "f": family, "l": learner, "n": tested, "p": protocol}
