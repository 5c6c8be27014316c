"""Write the report: tables, figures and one self-contained page, made from records alone."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from metalearn_benchmarks.claims import text as claims_text
from metalearn_benchmarks.claims.published import deviations
from metalearn_benchmarks.claims.rules import claim_rules
from metalearn_benchmarks.claims.verdicts import decide_all
from metalearn_benchmarks.host.escape import for_html
from metalearn_benchmarks.host.interrupts import delayed_interrupts
from metalearn_benchmarks.plotting.style import COLOURS, DARK_COLOURS, styles_by_method
from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.records.row_names import base_method
from metalearn_benchmarks.report.conditions import conditions
from metalearn_benchmarks.report.grouping import cross_family_records
from metalearn_benchmarks.report.numbers import format_interval, format_number
from metalearn_benchmarks.report.paper.figures import PaperFigure, paper_figures
from metalearn_benchmarks.report.sections import Files, add_figure, report_section
from metalearn_benchmarks.report.tables.building import result_tables
from metalearn_benchmarks.report.tables.findings import findings, opening
from metalearn_benchmarks.report.tables.grids import grid_of_settings
from metalearn_benchmarks.report.tables.notes import size_note
from metalearn_benchmarks.report.tables.over_streams import StreamTable, row_cells, stream_tables
from metalearn_benchmarks.report.tables.result_table import ResultTable
from metalearn_benchmarks.report.tables.text import format_difference, format_never_learned, table_environment
from metalearn_benchmarks.rule_map.drawing import draw_map
from metalearn_benchmarks.rule_map.matrix import draw_matrix
from metalearn_benchmarks.rule_map.overview import BOXES, draw_overview
from metalearn_benchmarks.rule_map.text import laws, sentence
from metalearn_benchmarks.theory import shipped_map

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
    records: Sequence[Record], target: Path, unfinished: int = 0, skipped: Sequence[str] = (),
    interval_method: str = "t", results: Sequence[ResultTable] | None = None,
    over_streams: Sequence[StreamTable] | None = None,
) -> Path:  # fmt: skip
    """Write `report.html`, and beside it every table (Markdown, LaTeX) and every figure (PNG, PDF).

    Args:
        records: the records by experiment, setting, method and seed, as `read_records` gives them.
        target: the folder to write to.
        unfinished: the number of runs that were started and have no result.
        skipped: a line for each thing in the folder that the report leaves out, with the reason.
        interval_method: how intervals are made, see `summarise_method`.
        results: the tables, where they were made before with the same `interval_method`.
        over_streams: the tables over streams, where they were made before.

    Returns:
        The path of `report.html`.
    """
    shown = [*records, *cross_family_records(records)]
    styles = styles_by_method(shown)
    tables = result_tables(shown, interval_method) if results is None else results
    streams = stream_tables(records) if over_streams is None else over_streams
    # all files are written together at the end: Ctrl-C before that leaves an older report as it was
    files: Files = {}
    sections = [report_section(table, shown, styles, files) for table in tables]
    drawn, missing = paper_figures(records)
    verdicts = claims_text.verdicts_with_evidence(decide_all(claim_rules(), records))
    known = deviations()
    map_files, shown_map = _rule_map()
    files |= map_files
    files["report.html"] = _page_template().render(
        opening=opening(tables) if tables else "",
        findings=[one for table in tables for one in findings(table)],
        conditions=conditions(records),
        small=_size_notes(records),
        experiments=_experiments(sections),
        streams=[(table, [row_cells(row) for row in table.rows]) for table in streams],
        unfinished=unfinished,
        skipped=skipped,
        runs=len(records),
        methods=len({record.method for record in records}),
        paper=[_paper_figure(figure, files) for figure in drawn],
        missing=missing,
        verdicts=verdicts,
        deviations=_concerning(known, records),
        map=shown_map if _are_on_the_map(records) else None,
        light=COLOURS,
        dark=DARK_COLOURS,
    )
    files["deviations.md"] = table_environment().from_string(DEVIATIONS_MARKDOWN).render(deviations=known)
    if verdicts:
        files["claims.md"] = claims_text.as_markdown(verdicts)
    with delayed_interrupts():
        for name, content in files.items():
            write_atomically(target / name, content)
    return target / "report.html"


def _size_notes(records: Sequence[Record]) -> list[str]:
    """A line for each experiment that was not trained at the paper's scale."""
    groups = groupby(records, lambda record: record.experiment)
    return list(dict.fromkeys(note for _, of in groups for note in size_note(list(of))))


def _experiments(sections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sections of each experiment, with the grid over its settings where it has several."""
    return [
        {"name": name, "sections": of, "grid": grid_of_settings([section["table"] for section in of])}
        for name, group in groupby(sections, lambda section: section["table"].experiment)
        for of in (list(group),)
    ]


def _concerning(known: Sequence[Any], records: Sequence[Record]) -> list[Any]:
    """The deviations from the paper that matter for a method of these records."""
    methods = {base_method(record.method) for record in records}
    return [one for one in known if methods & set(one.methods)]


def _are_on_the_map(records: Sequence[Record]) -> bool:
    """Whether a rule of these records is one of the paper's three."""
    return any(record.cell["method"].get("rule") in BOXES for record in records)


def _page_template() -> Any:
    loader = PackageLoader("metalearn_benchmarks.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_page_text
    )
    environment.filters |= {
        "n": format_number,
        "i": format_interval,
        "diff": format_difference,
        "never": format_never_learned,
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


def _paper_figure(drawn: PaperFigure, files: Files) -> dict[str, str]:
    """A figure of the paper, added to the files, as the page's template shows it."""
    svg = add_figure(drawn.figure, files, drawn.stem, drawn.title)
    return {"id": drawn.stem, "title": drawn.title, "caption": drawn.caption, "svg": svg}


@functools.cache
def _rule_map() -> tuple[Files, dict[str, Any]]:
    """The map of the shipped rules, the same in every report: its files, and what the page shows of it.

    It has a figure of the paper's three rules, two of all, and the witnesses that their numbers refer to.
    """
    rule_map = shipped_map()
    files: Files = {}
    graph = draw_map(rule_map, witnesses=False)
    three = draw_overview(rule_map)
    return files, {
        "three": add_figure(three, files, "map-overview", "The paper's three rules, and what contains what"),
        "graph": add_figure(graph, files, "map", "Which rule contains which"),
        "matrix": add_figure(
            draw_matrix(rule_map), files, "map-matrix", "Which rule contains which, all pairs"
        ),
        "witnesses": [sentence(rule_map, law) for law in laws(rule_map)],
    }
