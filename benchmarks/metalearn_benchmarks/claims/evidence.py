"""What records there are for a row of a claim in a setting, and what is missing."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Any

import attrs

from metalearn_benchmarks.claims.rules import RowRule, SettingRule, value_at
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.paired_scores import Scores
from metalearn_core.errors import UsageError


@attrs.frozen(eq=False)
class Evidence:
    """A method's runs in a setting.

    Args:
        method, place: in words; place is the setting and T.
        runs: none where `lacks` says that there are none to be used.
        lacks: what is missing, a line each, with what would settle it.
        command: runs more of it, but for the number of seeds.
    """

    method: str
    place: str
    runs: list[Record]
    scores: Scores | None
    lacks: tuple[str, ...]
    command: str

    @property
    def title(self) -> str:
        """Method, setting and T, in words."""
        return f"{self.method} {self.place}"


@attrs.define
class Evidences:
    """Finds evidence in records, each once."""

    records: Sequence[Record]
    _found: dict[Hashable, Evidence] = attrs.field(factory=dict)

    def of(self, row: RowRule, setting: SettingRule, steps: int | None) -> Evidence:
        """The runs of a method in a setting, with T = `steps` where it is asked for."""
        key = (row.title, setting.title, steps)
        if key not in self._found:
            self._found[key] = _evidence(self.records, row, setting, steps)
        return self._found[key]


def _evidence(records: Sequence[Record], row: RowRule, setting: SettingRule, steps: int | None) -> Evidence:
    place = f"on {setting.title}" + ("" if steps is None else f" with T = {steps}")
    where = f"{row.title} {place}"
    command = _command(row, setting, steps)
    fitting = [
        run
        for run in records
        if row.fits(run) and setting.fits(run) and (steps is None or _steps(run) == steps)
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
        scores = Scores.of(runs, setting.tests(runs[0]))
    except UsageError as error:
        return Evidence(row.title, place, [], None, (str(error),), command)
    return Evidence(row.title, place, runs, scores, (), command)


def _command(row: RowRule, setting: SettingRule, steps: int | None) -> str:
    """What runs it at the paper's scale."""
    words = ["metalearn run", row.run or setting.run, "--scale paper"]
    if row.run is None and row.method is not None:
        words.append(f"-m {row.method}")
        words += [] if steps is None else [f"--steps {steps}"]
    return " ".join(words)


def _steps(run: Record) -> Any:
    """T, where it is the same at training and at test."""
    trained = value_at(run.cell, "method.settings.steps")
    return trained if value_at(run.cell, "method.settings.test_steps") in (None, trained) else None


def _one_method(runs: list[Record], row: RowRule) -> tuple[list[Record], list[str]]:
    """The runs of one method, and the names of all that fit.

    The same method may stand in several experiments: the one with most seeds is taken. Of different
    methods, the one of the row's own name is; none, where there is no such.
    """
    groups = [list(group) for _, group in groupby(runs, lambda r: (r.experiment, r.setting, r.method))]
    groups.sort(key=lambda group: (-len(group), group[0].experiment, group[0].setting))
    contents = [_content(group[0]) for group in groups]
    names = sorted({group[0].method for group in groups})
    if any(content != contents[0] for content in contents):
        groups = [group for group in groups if _without_steps(group[0].method) == row.method]
        contents = [_content(group[0]) for group in groups]
        if not groups or any(content != contents[0] for content in contents):
            return [], names
    return groups[0], names


def _without_steps(name: str) -> str:
    """The name of a row whose T is not the method's own, as it would be at that T."""
    return re.sub(r",steps=\d+(?=,|$)", "", name)


def _content(run: Record) -> dict[str, Any]:
    """All that a run's numbers depend on, but for its seed, its size and where it was computed."""
    method = {key: value for key, value in run.cell["method"].items() if key not in ("title", "source")}
    method["settings"] = {k: v for k, v in method["settings"].items() if k not in ("engine", "tasks_at_once")}
    family, learner = run.cell["family"], run.cell.get("learner")
    tested = run.cell.get("test_tasks")
    protocol = run.result.get("protocol")
    return {"m": method, "f": family, "l": learner, "n": tested, "p": protocol}
