"""What the page shows of one setting: its finding, its figures, its table, and what folds away."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from metalearn_benchmarks.claims.published import published_result
from metalearn_benchmarks.host.escape import for_file_name
from metalearn_benchmarks.plotting.rendering import inline_svg, render
from metalearn_benchmarks.plotting.style import RC_PARAMS, MethodStyles
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.figures import comparison_figures, rule_figures, setting_figures
from metalearn_benchmarks.report.figures.drawing import SettingFigure, draw_figure
from metalearn_benchmarks.report.grouping import runs_by_method
from metalearn_benchmarks.report.paper.comparison import (
    COMPARISON_LATEX,
    COMPARISON_MARKDOWN,
    comparison_table,
)
from metalearn_benchmarks.report.protocol import setting_protocol
from metalearn_benchmarks.report.tables.findings import findings
from metalearn_benchmarks.report.tables.grids import grid_of_steps
from metalearn_benchmarks.report.tables.result_table import ResultTable
from metalearn_benchmarks.report.tables.text import LATEX, MARKDOWN, render_table

Files = dict[str, bytes | str]
"""The contents of the report by file name."""
MOST_CURVES = 8
"""The most methods of the figures with a curve for each: there are eight colours."""
MOST_ROWS = 16
"""Comparisons of more rows than these are folded away below their grid."""


def report_section(
    table: ResultTable, records: Sequence[Record], styles: MethodStyles, files: Files
) -> dict[str, Any]:
    """Add the table and the figures of a setting to the files; return what the page shows of it."""
    runs = [r for r in records if (r.experiment, r.setting) == (table.experiment, table.setting)]
    stem = for_file_name(f"{table.experiment}-{table.setting}")
    paper = {row.method: published_result(table.setting, row.method) for row in table.rows}
    for ending, template, comparison in (
        ("md", MARKDOWN, COMPARISON_MARKDOWN),
        ("tex", LATEX, COMPARISON_LATEX),
    ):
        files[f"{stem}.{ending}"] = render_table(table, template)
        if any(paper.values()):
            files[f"{stem}-beside-the-paper.{ending}"] = comparison_table(table, paper, comparison)
    rank = {row.method: place for place, row in enumerate(table.rows)}
    best_first = sorted(runs, key=lambda r: rank[r.method])
    chosen = methods_with_curves(table)
    curves = [run for run in best_first if run.method in chosen]
    return {
        "id": re.sub(r"[^\w-]+", "-", stem),
        "table": table,
        "findings": findings(table),
        "grid": grid_of_steps(table),
        "titles": {runs[0].method: title for title, runs in runs_by_method(best_first)},
        "paper": paper if any(paper.values()) else {},
        "first": list(_first_figures(table, best_first, styles, files, stem)),
        "long": len(table.rows) > MOST_ROWS,
        "shown": _which_are_shown(chosen, table),
        "figures": list(_figures(setting_figures.FIGURES, curves, styles, files, stem)),
        "rules": list(_figures(rule_figures.FIGURES, curves, styles, files, stem)),
        "protocol": setting_protocol(best_first),
    }


def methods_with_curves(table: ResultTable) -> list[str]:
    """Return the methods that have a curve of their own: the best of the T with the most rows."""
    rows = max(table.groups, key=len)
    return [row.method for row in rows[:MOST_CURVES]]


def _which_are_shown(chosen: Sequence[str], table: ResultTable) -> str:
    """What the figures of curves leave out, in a sentence; nothing where they show all rows."""
    if len(chosen) == len(table.rows):
        return ""
    (at,) = {row.group for row in table.rows if row.method in chosen}
    best = f"the {len(chosen)} best" + (f" at T = {at}" if len(table.groups) > 1 else "")
    return f"The figures below show {best}, of {len(table.rows)} rows in all."


def _first_figures(
    table: ResultTable, records: Sequence[Record], styles: MethodStyles, files: Files, stem: str
) -> Iterator[dict[str, str]]:
    dots = "Each method with its 95 % interval, in the order of the table."
    if any(row.seeds > 1 for row in table.rows):
        dots += f" A faint dot is a run ({'mean' if table.higher_is_better else 'median'} over test tasks)."
    forest = (
        f"Paired differences from {table.reference}, with 95 % intervals. A hollow grey mark is not told from"
        " chance once all comparisons are allowed for (Holm), even where its own interval leaves 0 out."
    )
    if all(row.seeds == 1 for row in table.rows):
        forest = (
            f"Paired differences from {table.reference}, with 95 % intervals over the test tasks. Marks are"
            " hollow and grey: one seed of each method does not tell methods apart."
        )
    for name, title, caption, draw in (
        ("scores", table.headline.capitalize(), dots, comparison_figures.score_dots),
        ("differences", f"Differences from {table.reference}", forest, comparison_figures.difference_forest),
    ):
        with matplotlib.rc_context(RC_PARAMS):
            figure = draw(table, records, styles)
        if figure is not None:
            svg = add_figure(figure, files, f"{stem}-{name}", title)
            yield {"title": title, "caption": caption, "svg": svg}


def _figures(
    figures: Mapping[str, SettingFigure],
    records: Sequence[Record],
    styles: MethodStyles,
    files: Files,
    stem: str,
) -> Iterator[dict[str, str]]:
    """The figures in which these records have something to show."""
    for name, (title, caption, draw) in figures.items():
        figure = draw_figure(draw, records, styles)
        if figure is not None:
            svg = add_figure(figure, files, f"{stem}-{name}", title)
            yield {"title": title, "caption": caption, "svg": svg}


def add_figure(figure: Figure, files: Files, stem: str, title: str) -> str:
    """Add a figure as PNG and PDF to the files, and return its SVG for the page."""
    for ending in ("png", "pdf"):
        files[f"{stem}.{ending}"] = render(figure, ending, stem)
    return inline_svg(render(figure, "svg", stem), title)
