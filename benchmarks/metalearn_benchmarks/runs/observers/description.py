"""What the factories of observers are told of a run, beside what its `experiment.toml` says."""

from __future__ import annotations

from typing import Any

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.records.metrics_log import MetricsLog
from metalearn_benchmarks.runs.resolution import registered_entries
from metalearn_benchmarks.runs.results.provenance import commit, versions


def described_run(cell: Cell, log: MetricsLog) -> dict[str, Any]:
    """Describe a run for a tracker.

    Args:
        cell: The cell.
        log: The log of its validations, which knows whether the run goes on.

    Returns:
        `run_id`: the same when the run goes on, and of no other run. `resumed`: whether it goes on.
        `commit` and `versions`: of the code, as `result.json` has them. `tags`: words to find it by.
    """
    distributions = {entry.distribution for entry in registered_entries(cell).values()}
    return {
        "run_id": log.run_id,
        "resumed": log.resumed,
        "commit": commit(),
        "versions": versions(distributions),
        "tags": [cell.experiment, cell.setting, cell.name, f"seed {cell.seed}", cell.scale, cell.method.rule],
    }
