"""The report: tables, figures and one self-contained page, from records alone. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from metalearn_benchmarks.figures import FIGURES, TEXT, draw, rendered
from metalearn_benchmarks.map_drawing import draw_map, draw_matrix
from metalearn_benchmarks.map_text import laws, sentence
from metalearn_benchmarks.records import Record, write_atomically
from metalearn_benchmarks.tables import LATEX, MARKDOWN, as_text, interval, number, result_tables
from metalearn_benchmarks.theory import shipped_map


def write_report(records: Sequence[Record], target: Path, unfinished: int = 0) -> Path:
    """Write `report.html`, and beside it every table (Markdown, LaTeX) and figure (PNG, PDF); its path."""
    sections = []
    for table in result_tables(records):
        of_it = [r for r in records if (r.experiment, r.setting) == (table.experiment, table.setting)]
        stem = f"{table.experiment}-{table.setting}"
        write_atomically(target / f"{stem}.md", as_text(table, MARKDOWN))
        write_atomically(target / f"{stem}.tex", as_text(table, LATEX))
        figures = []
        for name, (caption, _) in FIGURES.items():
            figure = draw(name, of_it)
            if figure is not None:
                figures.append({"caption": caption, "svg": _save(figure, target / f"{stem}-{name}")})
        protocols = [
            {"title": runs[0].title, "method": method, "runs": [_protocol(run) for run in runs]}
            for method, group in groupby(of_it, lambda r: r.method)
            if (runs := list(group))
        ]
        sections.append({"table": table, "figures": figures, "protocols": protocols})
    loader = PackageLoader("metalearn_benchmarks", "templates")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"n": number, "i": interval}
    template = environment.get_template("report.html.j2")
    page = template.render(sections=sections, unfinished=unfinished, map=_rule_map(target))
    write_atomically(target / "report.html", page)
    return target / "report.html"


def _save(figure: Figure, stem: Path) -> str:
    """Write a figure as PNG and PDF; its SVG, to stand inside the page."""
    for ending in ("png", "pdf"):
        write_atomically(stem.with_name(f"{stem.name}.{ending}"), rendered(figure, ending, stem.name))
    svg = rendered(figure, "svg", stem.name).decode()
    return svg[svg.index("<svg") :]


def _rule_map(target: Path) -> dict[str, Any]:
    """What each shipped rule can express: two figures, and the witnesses that their numbers stand for."""
    rule_map = shipped_map()
    figures = {"map": draw_map(rule_map, witnesses=False), "map-matrix": draw_matrix(rule_map)}
    # so much text is read more easily in the page's own ink
    graph, matrix = (_save(f, target / name).replace(TEXT, "currentColor") for name, f in figures.items())
    return {
        "graph": graph,
        "matrix": matrix,
        "witnesses": [sentence(rule_map, law) for law in laws(rule_map)],
    }


def _protocol(run: Record) -> dict[str, Any]:
    """All that the numbers of one run depend on, as text."""
    result = run.result
    told = ("commit", "versions", "device", "engine", "threads", "seeds_together", "protocol", "seconds")
    facts = {key: result.get(key) for key in (*told, "peak_memory_bytes", "best_position", "diverged")}
    return {
        "seed": run.seed,
        "folder": "/".join(run.folder.parts[-4:]),
        "cell": json.dumps(run.cell, indent=1, ensure_ascii=False),
        "facts": json.dumps(facts, indent=1, ensure_ascii=False),
    }
