"""Which rows of a table differ: from the best one, and from the one that a reader compares with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from metalearn_benchmarks.records.row_names import without_steps
from metalearn_benchmarks.report.tables.result_table import Row
from metalearn_benchmarks.statistics.comparisons import Contrast, holm
from metalearn_benchmarks.statistics.headline import headline_difference
from metalearn_benchmarks.statistics.paired_scores import MethodScores

SIGNIFICANCE_LEVEL = 0.05
"""The level at which rows are distinguished, over all comparisons of a table."""


def mark_best(rows: Sequence[Row], scores: Mapping[str, MethodScores], up: bool) -> list[Row]:
    """Return the rows with their differences from the best one, and with marks where the tests allow them.

    A row whose headline has no value is worse than one that has, and needs no test. With a single seed
    nothing is marked, since it says nothing about other seeds.

    Args:
        rows: rows that are compared with each other, the best one first.
        scores: the scores of each method.
        up: whether a higher score is better.
    """
    first, rest = rows[0], rows[1:]
    differences = [_paired_difference(scores[row.method], scores[first.method], up) for row in rest]
    # the first row was chosen as the best of these: any pair of rows could have been tested here
    adjusted = holm(_p_values(differences), among=math.comb(len(rows), 2))
    known = first.seeds > 1 and not math.isnan(first.headline.value)
    apart = [
        known and (math.isnan(row.headline.value) or p < SIGNIFICANCE_LEVEL)
        for row, p in zip(rest, adjusted, strict=True)
    ]
    ties = [any(apart) and not behind for behind in apart]
    best = attrs.evolve(
        first, best=any(apart) and not any(ties), tied=any(apart) and any(ties), reference=True
    )
    return [
        best,
        *(
            attrs.evolve(
                row, difference_from_best=contrast, adjusted_p=p, tied=tied, apart=behind,
                difference=contrast, differs=behind,
            )
            for row, contrast, p, tied, behind in zip(rest, differences, adjusted, ties, apart, strict=True)
        ),
    ]  # fmt: skip


def compare_with(method: str, rows: Sequence[Row], scores: Mapping[str, MethodScores], up: bool) -> list[Row]:
    """Return the rows with their differences from a method that was chosen, not found to be the best.

    Args:
        method: the name of the method; at each T it is the row of this name that has the T.
        rows: rows that are compared with each other, with their marks. Without the method they stay.
        scores: the scores of each method.
        up: whether a higher score is better.
    """
    reference = next((row for row in rows if without_steps(row.method) == method), None)
    if reference is None:
        return [*rows]
    rest = [row for row in rows if row is not reference]
    differences = [_paired_difference(scores[row.method], scores[reference.method], up) for row in rest]
    adjusted = holm(_p_values(differences), among=len(rest))
    compared = {
        row.method: attrs.evolve(row, difference=contrast, differs=p < SIGNIFICANCE_LEVEL, reference=False)
        for row, contrast, p in zip(rest, differences, adjusted, strict=True)
    }
    chosen = attrs.evolve(reference, difference=None, differs=False, reference=True)
    return [compared.get(row.method, chosen) for row in rows]


def _paired_difference(one: MethodScores, other: MethodScores, up: bool) -> Contrast | None:
    if not {*one.seeds} & {*other.seeds}:
        return None
    return headline_difference(one, other, higher_is_better=up)


def _p_values(differences: Sequence[Contrast | None]) -> list[float]:
    """With one seed a difference has none: it says nothing about other seeds."""
    return [c.p_value() if c is not None and c.seeds > 1 else math.nan for c in differences]
