"""Result tables as plain data for programs. Imports no torch."""

from __future__ import annotations

import math
from typing import Any

from metalearn_benchmarks.report.tables.findings import findings
from metalearn_benchmarks.report.tables.over_streams import StreamTable
from metalearn_benchmarks.report.tables.result_table import ResultTable, Row
from metalearn_benchmarks.statistics.estimate import Estimate


def table_as_data(table: ResultTable) -> dict[str, Any]:
    """Return a table as plain data. What is not known, or not finite, is None.

    Args:
        table: The table.
    """
    return {
        "experiment": table.experiment,
        "setting": table.setting,
        "score": table.score,
        "higher_is_better": table.higher_is_better,
        "headline": table.headline,
        "intervals": table.interval_method,
        "findings": [one.text for one in findings(table)],
        "notes": [*table.notes],
        "differences_from": {str(row.group): row.method for row in table.rows if row.reference},
        "rows": [_row_as_data(row) for row in table.rows],
    }


def stream_table_as_data(table: StreamTable) -> dict[str, Any]:
    """Return a table over streams as plain data. What is not known, or not finite, is None."""
    rows = []
    for row in table.rows:
        ratio = None if row.contrast is None else row.contrast.ratio()
        rows.append({
            "method": row.method,
            "title": row.title,
            "steps": row.steps,
            "runs": row.runs,
            "typical_error": _finite(row.typical_error),
            "by_stream": dict(zip(map(str, table.streams), map(_finite, row.by_stream), strict=True)),
            "never_learned": row.never_learned,
            "ratio": None if ratio is None else _estimate_as_data(ratio),
            "told_apart": None if row.contrast is None else row.apart,
        })  # fmt: skip
    return {
        "experiment": table.experiment, "setting": table.setting, "streams": [*table.streams], "rows": rows,
    }  # fmt: skip


def _row_as_data(row: Row) -> dict[str, Any]:
    first = row.difference_from_best
    return {
        "method": row.method,
        "title": row.title,
        "headline": _estimate_as_data(row.headline),
        "never_learned": row.never_learned,
        "mean": _estimate_as_data(row.mean),
        "median": _estimate_as_data(row.median),
        "interquartile_mean": _estimate_as_data(row.interquartile_mean),
        "difference": None if row.difference is None else _estimate_as_data(row.difference.interval()),
        "differs": row.differs,
        "less_the_first": None if first is None else _estimate_as_data(first.interval()),
        "adjusted_p": _finite(row.adjusted_p),
        "behind_the_first": row.apart,
        "best": row.best,
        "tied": row.tied,
        "steps": row.steps,
        "seeds": row.seeds,
        "tasks": row.tasks,
        "seconds": _finite(row.seconds),
        "diverged": row.diverged,
        "not_finite": row.not_finite,
    }


def _estimate_as_data(estimate: Estimate) -> dict[str, float | None]:
    return {"value": _finite(estimate.value), "low": _finite(estimate.low), "high": _finite(estimate.high)}


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
