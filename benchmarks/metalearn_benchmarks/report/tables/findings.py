"""What was found, in a sentence for each comparison: never more than the table's statistics say."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from metalearn_benchmarks.records.row_names import compact_title, title_without_steps
from metalearn_benchmarks.report.numbers import format_interval, format_number
from metalearn_benchmarks.report.tables.result_table import ResultTable, Row
from metalearn_benchmarks.statistics.comparisons import Contrast

MOST_NAMES = 3
"""More methods than these are counted and not named."""


@attrs.frozen
class Finding:
    """What one comparison of methods tells.

    Args:
        text: the sentence.
        decided: whether one method is ahead of all others beyond chance.
        partly: whether it is so of some methods.
        alone: whether there is one method, with none to compare it with.
        where: the T of the comparison, where a table has several.
    """

    text: str
    decided: bool = False
    partly: bool = False
    alone: bool = False
    where: str = ""


def findings(table: ResultTable) -> list[Finding]:
    """Return what the rows of a table tell: one finding, or one for each T."""
    groups = table.groups
    found = []
    for rows in groups:
        where = f"T = {rows[0].group}" if len(groups) > 1 else ""
        found.append(attrs.evolve(_finding(table, rows, bool(where)), where=where))
    return found


def _finding(table: ResultTable, rows: Sequence[Row], grouped: bool) -> Finding:
    names = [compact_title(title_without_steps(row.title) if grouped else row.title) for row in rows]
    first, rest = rows[0], list(zip(names[1:], rows[1:], strict=True))
    least = "highest" if table.higher_is_better else "lowest"
    number = f"{format_number(first.headline.value)} {format_interval(first.headline)}".removesuffix(" –")
    seeds = _that_never_learned(first)
    if not rest:
        text = f"{names[0]} has no other method beside it; its {table.headline} is {number}.{seeds}"
        return Finding(text, alone=True)
    leads = f"{names[0]} has the {least} {table.headline}, {number}"
    behind = [name for name, row in rest if row.apart]
    level = [name for name, row in rest if not row.apart]
    if max(row.seeds for row in rows) == 1 and len(rest) == 1 and rest[0][1].difference_from_best:
        lead = _lead_of_one_seed(names[0], *rest[0], rest[0][1].difference_from_best)
        return Finding(f"{lead} It takes more seeds to tell methods apart.{seeds}")
    if max(row.seeds for row in rows) == 1:
        return Finding(f"These records do not tell which method is best: each has one seed. {leads}.{seeds}")
    if not behind:
        return Finding(
            f"These records do not tell which method is best. {leads}; no difference from it is beyond"
            f" chance.{seeds}"
        )
    if level:
        return Finding(
            f"{leads}. It is ahead of {_listed(behind)}, and cannot be told from {_listed(level)}.{seeds}",
            partly=True,
        )
    contrast = rest[0][1].difference_from_best if len(rest) == 1 else None
    by = f", by {_size(contrast)}" if contrast else ""
    return Finding(f"{leads}, and is ahead of {_listed(behind)}{by}.{seeds}", decided=True)


def _lead_of_one_seed(first: str, name: str, second: Row, contrast: Contrast) -> str:
    """A sentence on two runs, on the test tasks that they share."""
    paired = f"paired over {second.tasks:,} test tasks"
    bounds = contrast.interval().without_sign()
    if bounds.low > 0 or bounds.high < 0:
        return f"On one seed each, {first} is ahead of {name} by {_size(contrast)}, {paired}."
    lower = f"On one seed each, {first} is better than {name} by {_size(contrast)}, {paired}"
    return f"{lower}; that may be chance."


def _size(contrast: Contrast) -> str:
    """A difference without its sign, and its interval."""
    size = contrast.interval().without_sign()
    return f"{format_number(size.value)} {format_interval(size)}"


def _that_never_learned(row: Row) -> str:
    """A sentence on the seeds of a row that never learned, or nothing where there is none."""
    if not row.never_learned:
        return ""
    if row.seeds == 1:
        return " Its only seed never learned."
    return f" {row.never_learned} of its {row.seeds} seeds never learned."


def _listed(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMES:
        return f"{len(names)} others"
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def opening(tables: Sequence[ResultTable]) -> str:
    """Return the sentence that opens a report: its only finding, or how many comparisons are decided."""
    found = [one for table in tables for one in findings(table)]
    if len(found) == 1:
        return found[0].text
    compared = sum(len(rows) > 1 for table in tables for rows in table.groups)
    decided = sum(one.decided for one in found)
    partly = sum(one.partly for one in found)
    open_ = compared - decided - partly
    if not compared:
        return "These records compare no methods: each table has a single row."
    if not decided and not partly:
        return f"In none of {compared} comparisons do these records tell which method is best."
    return (
        f"Of {compared} comparisons, {decided} {_have(decided)} one method ahead of all others beyond"
        f" chance, {partly} {_have(partly)} one ahead of some, and"
        f" {open_} {_are(open_)} undecided."
    )


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
