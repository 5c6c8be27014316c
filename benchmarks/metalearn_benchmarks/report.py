"""The report: tables, figures and one self-contained page, from records alone. Imports no torch."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from metalearn_benchmarks.figures import FIGURES, STYLE, draw
from metalearn_benchmarks.records import Record, write_atomically
from metalearn_benchmarks.tables import LATEX, MARKDOWN, as_text, interval, number, result_tables


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
    page = environment.get_template("report.html.j2").render(sections=sections, unfinished=unfinished)
    write_atomically(target / "report.html", page)
    return target / "report.html"


def _save(figure: Figure, stem: Path) -> str:
    """Write a figure as PNG and PDF; its SVG, to stand inside the page."""
    with matplotlib.rc_context(STYLE):
        # a figure's own colours are for light and dark pages alike; a file stands on white
        formats: dict[str, Any] = {"png": {"dpi": 150}, "pdf": {"metadata": {"CreationDate": None}}}
        for ending, options in formats.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending, transparent=False, **options)
            write_atomically(stem.with_name(f"{stem.name}.{ending}"), buffer.getvalue())
        text = io.StringIO()
        # a salt of its own keeps the ids of one figure from meaning another's in the same page
        with matplotlib.rc_context({"svg.hashsalt": stem.name}):
            figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


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
