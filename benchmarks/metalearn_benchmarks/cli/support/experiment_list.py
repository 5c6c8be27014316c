"""The list that `metalearn experiments` prints: each experiment, its runs, and about how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from metalearn_benchmarks.cli.support.entries import NamedEntry
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

    def as_entry(self) -> NamedEntry:
        """Return the entry of the list."""
        experiment, runs = self.listed.experiment, self.estimate.runs
        size = f"scale {self.listed.scale}: {runs} run{'' if runs == 1 else 's'}, {self._duration()}"
        return NamedEntry(self.listed.name, experiment.title, [experiment.reproduces, size])

    def _duration(self) -> str:
        estimate = self.estimate
        if estimate.seconds is not None:
            return f"about {format_duration(estimate.seconds)}"
        if estimate.timed:
            return f"{estimate.timed} of {estimate.programs} programs timed"
        return "not timed"

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
    return f"{text}. Add --measure to time what was not timed." if missing else f"{text}."
