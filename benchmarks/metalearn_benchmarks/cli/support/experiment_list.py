"""The list that `metalearn experiments` prints: each experiment, its runs, and about how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from metalearn_benchmarks.experiments import catalogue
from metalearn_benchmarks.experiments.cell import Cell
from metalearn_benchmarks.experiments.experiment import Experiment, Overrides
from metalearn_benchmarks.host.machine import cores
from metalearn_benchmarks.runs.durations.estimates import Estimate, TimingCache, estimate, format_duration


@attrs.frozen(eq=False)
class ListedExperiment:
    """An experiment and all its runs at a scale.

    Args:
        name: Name of the experiment, or of its file.
        experiment: The experiment.
        scale: Name of the scale.
        cells: Its runs.
    """

    name: str
    experiment: Experiment
    scale: str
    cells: list[Cell]


@attrs.frozen(eq=False)
class ExperimentLine:
    """A line of the list: an experiment, and the time that its runs take on this machine."""

    listed: ListedExperiment
    estimate: Estimate

    def as_row(self) -> dict[str, Any]:
        """Return the row of the table."""
        estimate = self.estimate
        duration = "?" if estimate.seconds is None else format_duration(estimate.seconds)
        if estimate.seconds is None and estimate.timed:
            duration = f"? ({estimate.timed} of {estimate.programs} timed)"
        experiment = self.listed.experiment
        return {
            "experiment": self.listed.name,
            "scale": self.listed.scale,
            "runs": estimate.runs,
            "about": duration,
            "title": experiment.title,
            "reproduces": experiment.reproduces,
        }

    def as_data(self) -> dict[str, Any]:
        """Return plain data; `seconds` is None where a program of the experiment was not timed here."""
        experiment = self.listed.experiment
        return {
            "experiment": self.listed.name,
            "title": experiment.title,
            "reproduces": experiment.reproduces,
            "scale": self.listed.scale,
            **attrs.asdict(self.estimate),
        }


def list_experiments(names: Sequence[str], scale: str | None) -> list[ListedExperiment]:
    """Return the runs of experiments.

    Args:
        names: Names or files of experiments; without any, the shipped experiments.
        scale: Name of the scale; None for what `metalearn run` runs of each without one.

    Raises:
        UsageError: There is no such experiment.
    """
    experiments = catalogue.experiments().items() if not names else map(catalogue.find_experiment, names)
    listed = []
    for name, experiment in experiments:
        size, overrides = catalogue.default_run(experiment, scale, Overrides())
        cells = catalogue.cells(name, experiment, size, overrides)
        listed.append(ListedExperiment(name, experiment, size, cells))
    return listed


def estimate_durations(experiments: Sequence[ListedExperiment]) -> list[ExperimentLine]:
    """Return a line for each experiment, with the estimate from earlier runs on this machine."""
    times = TimingCache.load()
    return [ExperimentLine(one, estimate(one.cells, times, cores())) for one in experiments]


def footnote(lines: Sequence[ExperimentLine]) -> str:
    """Return a line that says what the times are, and how to get those that are missing."""
    missing = any(line.estimate.seconds is None for line in lines)
    at_a_time = f"{cores()} runs at a time" if cores() > 1 else "one run at a time"
    text = f"Times are for this machine, {at_a_time}, without the report"
    return f"{text}; ? was not timed here: add --measure." if missing else f"{text}."
