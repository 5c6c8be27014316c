"""The report: tables, figures and one self-contained page, from records alone. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from metalearn_benchmarks.claims import text as claims_text
from metalearn_benchmarks.claims.published import Published, deviations, published
from metalearn_benchmarks.claims.rules import claim_rules
from metalearn_benchmarks.claims.verdicts import decide_all
from metalearn_benchmarks.plotting import style
from metalearn_benchmarks.plotting.style import (
    COLOURS,
    DARK_COLOURS,
    Drawer,
    MethodStyles,
    for_page,
    rendered,
)
from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report import rule_figures
from metalearn_benchmarks.report.numbers import interval, number
from metalearn_benchmarks.report.paper_figures import paper_figures
from metalearn_benchmarks.report.protocol import protocol
from metalearn_benchmarks.report.setting_figures import FIGURES, by_method, draw
from metalearn_benchmarks.report.table_text import LATEX, MARKDOWN, as_text, environment
from metalearn_benchmarks.report.tables import ResultTable, result_tables
from metalearn_benchmarks.rule_map.drawing import draw_map
from metalearn_benchmarks.rule_map.matrix import draw_matrix
from metalearn_benchmarks.rule_map.text import laws, sentence
from metalearn_benchmarks.theory import shipped_map

BESIDE_MARKDOWN = """\
| method | our median | 95 % interval | seeds | the paper's median | where |
|---|---|---|---|---|---|
{% for r, p in rows -%}
| {{ r.title|md }} | {{ r.median.value|n }} | {{ r.median|i }} | {{ r.seeds }} | {{ p or "–" }} \
| {{ p.table if p else "–" }} |
{% endfor %}
{{ caption }}
"""

BESIDE_LATEX = r"""\begin{tabular}{lrrrrl}
\hline
method & our median & 95\,\% interval & seeds & the paper's median & where \\
\hline
{% for r, p in rows -%}
{{ r.title|tex }} & {{ r.median.value|n }} & {{ r.median|i }} & {{ r.seeds }}
{% if p %}& {{ "%.2f"|format(p.value) }} $\pm$ {{ "%.2f"|format(p.half_width) }} & {{ p.table }} \\
{%- else %}& -- & -- \\
{%- endif %}
{% endfor -%}
\hline
\end{tabular}
% {{ caption }}
"""

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
    left_out: Sequence[str] = (),
    statistics: str = "t",
    results: Sequence[ResultTable] | None = None,
) -> Path:
    """Write `report.html`, and beside it every table (Markdown, LaTeX) and figure (PNG, PDF); its path.

    Args:
        records: by experiment, setting, method and seed, as `read_records` gives them.
        unfinished: runs that were begun and have no result.
        left_out: what else of the folder is not in the report and why, a line each.
        statistics: how intervals are made, see `metalearn_benchmarks.statistics.summaries.summarise`.
        results: the tables so made, where they are there already.
    """
    shown = [*records, *across_families(records)]
    styles = style.styles_by_method(shown)
    made = result_tables(shown, statistics) if results is None else results
    sections = [_section(table, shown, styles, target) for table in made]
    redrawn, missing = paper_figures(records)
    verdicts = claims_text.decided(decide_all(claim_rules(), records))
    known = deviations()
    page = _page().render(
        sections=sections,
        unfinished=unfinished,
        left_out=left_out,
        runs=len(records),
        methods=len({record.method for record in records}),
        paper=[
            {"id": one.stem, "title": one.title, "caption": one.caption, "svg": _shown(one, target)}
            for one in redrawn
        ],
        missing=missing,
        verdicts=verdicts,
        deviations=known,
        map=_rule_map(target),
        light=COLOURS,
        dark=DARK_COLOURS,
    )
    listed = environment().from_string(DEVIATIONS_MARKDOWN).render(deviations=known)
    write_atomically(target / "deviations.md", listed)
    if verdicts:
        write_atomically(target / "claims.md", claims_text.as_markdown(verdicts))
    write_atomically(target / "report.html", page)
    return target / "report.html"


def across_families(records: Sequence[Record]) -> list[Record]:
    """For every family tested on beside the one trained on, the records as of a setting of its own."""
    views = []
    for record in records:
        own = record.cell["family"]["name"]
        for name, scores in record.result["scores"].items():
            if name != own and len(scores):
                cell = dict(record.cell, setting=f"{record.setting}-to-{name}")
                cell["family"] = dict(record.cell["family"], name=name)
                # learning curves and what the rule does belong to the family trained on
                result = dict(record.result, validations=[], curves=None, rule_response=None)
                views.append(attrs.evolve(record, cell=cell, result=result))
    return sorted(views, key=lambda r: (r.experiment, r.setting, r.method, r.seed))


def _page() -> Any:
    loader = PackageLoader("metalearn_benchmarks.report", "templates")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"n": number, "i": interval, "code": _with_code, "effect": claims_text.effect}
    return environment.get_template("report.html.j2")


def _with_code(text: str) -> Markup:
    """Text with what stands between backquotes as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def _section(
    table: ResultTable, records: Sequence[Record], looks: MethodStyles, target: Path
) -> dict[str, Any]:
    """A setting: its table, figures and protocol, each also written beside the page."""
    of_it = [r for r in records if (r.experiment, r.setting) == (table.experiment, table.setting)]
    stem = f"{table.experiment}-{table.setting}"
    paper = {row.method: published(table.setting, row.method) for row in table.rows}
    for ending, template, beside in (("md", MARKDOWN, BESIDE_MARKDOWN), ("tex", LATEX, BESIDE_LATEX)):
        write_atomically(target / f"{stem}.{ending}", as_text(table, template))
        if any(paper.values()):
            write_atomically(target / f"{stem}-beside-the-paper.{ending}", _beside(table, paper, beside))
    rank = {row.method: place for place, row in enumerate(table.rows)}
    best_first = sorted(of_it, key=lambda r: rank[r.method])
    return {
        "id": re.sub(r"[^\w-]+", "-", stem),
        "table": table,
        "titles": {runs[0].method: title for title, runs in by_method(best_first)},
        "paper": paper if any(paper.values()) else {},
        "figures": list(_figures(FIGURES, best_first, looks, target, stem)),
        "rules": list(_figures(rule_figures.FIGURES, best_first, looks, target, stem)),
        "protocol": protocol(best_first),
    }


def _beside(table: ResultTable, paper: Mapping[str, Published | None], template: str) -> str:
    rows = [(row, paper[row.method]) for row in table.rows]
    return environment().from_string(template).render(rows=rows, caption=table.caption)


def _figures(
    drawers: Mapping[str, tuple[str, str, Drawer]],
    records: Sequence[Record],
    looks: MethodStyles,
    target: Path,
    stem: str,
) -> Iterator[dict[str, str]]:
    """The figures that these records have something to show in."""
    for name, (title, caption, drawer) in drawers.items():
        figure = draw(drawer, records, looks)
        if figure is not None:
            svg = _save(figure, target / f"{stem}-{name}", title)
            yield {"title": title, "caption": caption, "svg": svg}


def _shown(redrawn: Any, target: Path) -> str:
    return _save(redrawn.figure, target / redrawn.stem, redrawn.title)


def _save(figure: Figure, stem: Path, title: str) -> str:
    """Write a figure as PNG and PDF; its SVG, to stand inside the page."""
    for ending in ("png", "pdf"):
        write_atomically(stem.with_name(f"{stem.name}.{ending}"), rendered(figure, ending, stem.name))
    return for_page(rendered(figure, "svg", stem.name), title)


def _rule_map(target: Path) -> dict[str, Any]:
    """What each shipped rule can express: two figures, and the witnesses that their numbers stand for."""
    rule_map = shipped_map()
    return {
        "graph": _save(draw_map(rule_map, witnesses=False), target / "map", "Which rule contains which"),
        "matrix": _save(draw_matrix(rule_map), target / "map-matrix", "Which rule contains which, all pairs"),
        "witnesses": [sentence(rule_map, law) for law in laws(rule_map)],
    }
