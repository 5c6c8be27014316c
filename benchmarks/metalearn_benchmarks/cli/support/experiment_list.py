"""What `metalearn experiments` lists: what each reproduces, its runs, and about how long they take here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from metalearn_benchmarks.experiments import catalogue
from metalearn_benchmarks.experiments.cell import Cell
from metalearn_benchmarks.experiments.experiment import Experiment, Overrides
from metalearn_benchmarks.host.machine import cores
from metalearn_benchmarks.runs.durations.estimates import Estimate, Times, estimate, format_duration


@attrs.frozen(eq=False)
class ListedExperiment:
    """An experiment and all its runs at a scale."""

    name: str
    experiment: Experiment
    scale: str
    cells: list[Cell]


@attrs.frozen(eq=False)
class ExperimentLine:
    """An experiment, and what its runs come to on this machine."""

    listed: ListedExperiment
    estimate: Estimate

    def as_row(self) -> dict[str, Any]:
        """For people."""
        told = self.estimate
        about = "?" if told.seconds is None else format_duration(told.seconds)
        if told.seconds is None and told.timed:
            about = f"? ({told.timed} of {told.programs} timed)"
        shown = self.listed.experiment
        return {
            "experiment": self.listed.name,
            "runs": told.runs,
            "about": about,
            "title": shown.title,
            "reproduces": shown.reproduces,
        }

    def as_data(self) -> dict[str, Any]:
        """For programs; `seconds` is null where a program of the experiment was not timed here."""
        shown = self.listed.experiment
        return {
            "experiment": self.listed.name,
            "title": shown.title,
            "reproduces": shown.reproduces,
            "scale": self.listed.scale,
            **attrs.asdict(self.estimate),
        }


def listed_experiments(names: Sequence[str], scale: str) -> list[ListedExperiment]:
    """The experiments of these names or files; without any, the shipped ones."""
    known = catalogue.experiments().items() if not names else map(catalogue.find_experiment, names)
    return [
        ListedExperiment(name, e, scale, catalogue.cells(name, e, scale, Overrides())) for name, e in known
    ]


def with_durations(experiments: Sequence[ListedExperiment]) -> list[ExperimentLine]:
    """With what is known of their time on this machine."""
    times = Times.here()
    return [ExperimentLine(one, estimate(one.cells, times, cores())) for one in experiments]


def footnote(told: Sequence[ExperimentLine], scale: str) -> str:
    """What the times of a list are, and how to have those that are missing."""
    missing = any(line.estimate.seconds is None for line in told)
    at_a_time = f"{cores()} runs at a time" if cores() > 1 else "one run at a time"
    text = f"Scale {scale}; times are for this machine, {at_a_time}, without the report"
    return f"{text}; ? was not timed here: add --measure." if missing else f"{text}."
