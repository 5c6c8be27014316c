"""Write the report: tables, figures and one self-contained page, made from records alone."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from metalearn_benchmarks.claims import text as claims_text
from metalearn_benchmarks.claims.published import deviations, published_result
from metalearn_benchmarks.claims.rules import claim_rules
from metalearn_benchmarks.claims.verdicts import decide_all
from metalearn_benchmarks.host.escape import for_file_name, for_html
from metalearn_benchmarks.host.interrupts import delayed_interrupts
from metalearn_benchmarks.plotting.rendering import inline_svg, render
from metalearn_benchmarks.plotting.style import COLOURS, DARK_COLOURS, MethodStyles, styles_by_method
from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report import rule_figures, setting_figures
from metalearn_benchmarks.report.figure_drawing import SettingFigure, draw_figure
from metalearn_benchmarks.report.grouping import cross_family_records, runs_by_method
from metalearn_benchmarks.report.numbers import format_interval, format_number
from metalearn_benchmarks.report.paper.comparison import (
    COMPARISON_LATEX,
    COMPARISON_MARKDOWN,
    comparison_table,
)
from metalearn_benchmarks.report.paper.figures import PaperFigure, paper_figures
from metalearn_benchmarks.report.protocol import setting_protocol
from metalearn_benchmarks.report.table_text import LATEX, MARKDOWN, render_table, table_environment
from metalearn_benchmarks.report.tables import ResultTable, result_tables
from metalearn_benchmarks.rule_map.drawing import draw_map
from metalearn_benchmarks.rule_map.matrix import draw_matrix
from metalearn_benchmarks.rule_map.text import laws, sentence
from metalearn_benchmarks.theory import shipped_map

Files = dict[str, bytes | str]
"""The contents of the report by file name."""
DEVIATIONS_MARKDOWN = """\
# Where this library and the paper part

{% for d in deviations -%}
## {{ d.title }}

- The paper: {{ d.paper }}
- Here: {{ d.here }}
- Why: {{ d.why }}
- Matters for: {{ d.methods|join(", ") }}

{% endfor %}"""


def write_report(
    records: Sequence[Record],
    target: Path,
    unfinished: int = 0,
    skipped: Sequence[str] = (),
    interval_method: str = "t",
    results: Sequence[ResultTable] | None = None,
) -> Path:
    """Write `report.html`, and beside it every table (Markdown, LaTeX) and every figure (PNG, PDF).

    Args:
        records: the records by experiment, setting, method and seed, as `read_records` gives them.
        target: the folder to write to.
        unfinished: the number of runs that were started and have no result.
        skipped: a line for each thing in the folder that the report leaves out, with the reason.
        interval_method: how intervals are made, see `summarise_method`.
        results: the tables, where they were made before with the same `interval_method`.

    Returns:
        The path of `report.html`.
    """
    shown = [*records, *cross_family_records(records)]
    styles = styles_by_method(shown)
    tables = result_tables(shown, interval_method) if results is None else results
    # all files are written together at the end: Ctrl-C before that leaves an older report as it was
    files: Files = {}
    sections = [_section(table, shown, styles, files) for table in tables]
    drawn, missing = paper_figures(records)
    verdicts = claims_text.verdicts_with_evidence(decide_all(claim_rules(), records))
    known = deviations()
    map_files, shown_map = _rule_map()
    files |= map_files
    page = _page_template().render(
        sections=sections,
        unfinished=unfinished,
        skipped=skipped,
        runs=len(records),
        methods=len({record.method for record in records}),
        paper=[_paper_figure(figure, files) for figure in drawn],
        missing=missing,
        verdicts=verdicts,
        deviations=known,
        map=shown_map,
        light=COLOURS,
        dark=DARK_COLOURS,
    )
    listed = table_environment().from_string(DEVIATIONS_MARKDOWN).render(deviations=known)
    files["deviations.md"] = listed
    if verdicts:
        files["claims.md"] = claims_text.as_markdown(verdicts)
    files["report.html"] = page
    with delayed_interrupts():
        for name, content in files.items():
            write_atomically(target / name, content)
    return target / "report.html"


def _page_template() -> Any:
    loader = PackageLoader("metalearn_benchmarks.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_page_text
    )
    environment.filters |= {
        "n": format_number,
        "i": format_interval,
        "code": _code_markup,
        "effect": claims_text.format_effect,
    }
    return environment.get_template("report.html.j2")


def _page_text(value: Any) -> Any:
    """What a page shows of a value: all text that is not markup may be a user's."""
    return for_html(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _code_markup(text: str) -> Markup:
    """HTML of a text in which backquotes stand around code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def _section(
    table: ResultTable, records: Sequence[Record], styles: MethodStyles, files: Files
) -> dict[str, Any]:
    """Add the table and the figures of a setting; return what the page shows of it."""
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
    return {
        "id": re.sub(r"[^\w-]+", "-", stem),
        "table": table,
        "titles": {runs[0].method: title for title, runs in runs_by_method(best_first)},
        "paper": paper if any(paper.values()) else {},
        "figures": list(_figures(setting_figures.FIGURES, best_first, styles, files, stem)),
        "rules": list(_figures(rule_figures.FIGURES, best_first, styles, files, stem)),
        "protocol": setting_protocol(best_first),
    }


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
            svg = _add_figure(figure, files, f"{stem}-{name}", title)
            yield {"title": title, "caption": caption, "svg": svg}


def _paper_figure(drawn: PaperFigure, files: Files) -> dict[str, str]:
    """A figure of the paper, added to the files, as the page's template shows it."""
    svg = _add_figure(drawn.figure, files, drawn.stem, drawn.title)
    return {"id": drawn.stem, "title": drawn.title, "caption": drawn.caption, "svg": svg}


def _add_figure(figure: Figure, files: Files, stem: str, title: str) -> str:
    """Add a figure as PNG and PDF, and return its SVG for the page."""
    for ending in ("png", "pdf"):
        files[f"{stem}.{ending}"] = render(figure, ending, stem)
    return inline_svg(render(figure, "svg", stem), title)


@functools.cache
def _rule_map() -> tuple[Files, dict[str, Any]]:
    """The map of the shipped rules, the same in every report: its files, and what the page shows of it.

    It has two figures, and the witnesses that their numbers refer to.
    """
    rule_map = shipped_map()
    files: Files = {}
    graph = draw_map(rule_map, witnesses=False)
    return files, {
        "graph": _add_figure(graph, files, "map", "Which rule contains which"),
        "matrix": _add_figure(
            draw_matrix(rule_map), files, "map-matrix", "Which rule contains which, all pairs"
        ),
        "witnesses": [sentence(rule_map, law) for law in laws(rule_map)],
    }
