"""The two claims on time, decided from `benchmarks/results/times.json`, and a table of times. Markdown."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from metalearn_benchmarks.claims.evidence import Evidence, EvidenceFinder
from metalearn_benchmarks.claims.rules import RowRule, SettingRule, claim_rules
from metalearn_benchmarks.claims.text import as_markdown
from metalearn_benchmarks.claims.verdicts import Verdict, decide
from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.speed.paper_times.timing import timed_cells

TIMES = Path(__file__).parents[1] / "benchmarks" / "results" / "times.json"
CLAIMS = ("time-turtle", "first-order-fastest")
TEST_FAMILIES = 2
"""A run of Figure 3.4 is tested on miniImageNet and on CUB, as Section 3.5.5 says."""


@functools.cache
def timings() -> Mapping[str, Any]:
    """What was timed, with where and when."""
    found: dict[str, Any] = json.loads(TIMES.read_text("utf-8"))
    return found


@functools.cache
def _cells() -> Mapping[tuple[str, int], Cell]:
    return {(cell.name, cell.family.options["shots"]): cell for cell in timed_cells()}


def seconds_of_a_run(timing: Mapping[str, Any]) -> tuple[float, float, float]:
    """Seconds of training, validation and test of a whole run, from the seconds of a task."""
    cell = _cells()[timing["method"], timing["shots"]]
    settings = cell.method.settings
    validations = settings["tasks"] // settings["validation_interval"] + 1  # one before the first step
    return (
        settings["tasks"] * timing["training"],
        validations * settings["validation_tasks"] * timing["test"],
        TEST_FAMILIES * cell.test_tasks * timing["test"],
    )


@attrs.define
class TimedEvidence(EvidenceFinder):
    """The timings as evidence: each turn stands in the place of a seed, and has no scores."""

    def find(self, row: RowRule, setting: SettingRule, steps: int | None) -> Evidence:
        """Return the timed runs of a method with as many shots as the setting has."""
        shots = setting.where["family.options.shots"]
        facts = {key: timings()[key] for key in ("device", "engine", "threads")}
        runs = [
            Record(TIMES, {"seed": one["turn"]}, {**facts, "seconds": sum(seconds_of_a_run(one))})
            for one in timings()["timings"]
            if (one["method"], one["shots"]) == (row.method, shots)
        ]
        missing = () if runs else (f"{row.title} was not timed",)
        return Evidence(row.title, f"on {shots}-shot noise", runs, None, missing, "")


def time_verdicts() -> list[Verdict]:
    """The verdicts on the two claims, by their own rules."""
    rules = claim_rules()
    return [decide(name, rules.claim[name], rules, TimedEvidence([])) for name in CLAIMS]


def times() -> str:
    """The verdicts, then the hours of a run by method: the mean over turns."""
    rows = [
        "| shots | method | training | validation | test | all, hours | range over turns |",
        "|---" * 7 + "|",
    ]
    groups: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    for one in timings()["timings"]:
        groups.setdefault((one["shots"], one["method"]), []).append(seconds_of_a_run(one))
    for (shots, method), runs in sorted(groups.items(), key=lambda item: (item[0][0], _mean(item[1]))):
        totals = np.sum(runs, 1) / 3600
        cells = [f"{hours:.1f}" for hours in (*np.mean(runs, 0) / 3600, totals.mean())]
        span = f"{totals.min():.1f} to {totals.max():.1f}"
        title = _cells()[method, shots].method.title
        rows.append(f"| {' | '.join((str(shots), title, *cells, span))} |")
    return f"{about()}\n\n{as_markdown(time_verdicts())}\n" + "\n".join(rows) + "\n"


def _mean(runs: Sequence[tuple[float, float, float]]) -> float:
    return float(np.sum(runs, 1).mean())


def about() -> str:
    """Where and when it was timed."""
    of = timings()
    turns = len({one["turn"] for one in of["timings"]})
    return (
        f"Timed on {of['date']} in {turns} turns on {of['threads']} core of {of['processor']}, "
        f"by the {of['engine']} engine, torch {of['versions']['torch']}, commit `{of['commit']}`."
    )
