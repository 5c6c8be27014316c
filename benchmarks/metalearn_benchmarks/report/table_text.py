"""Result tables as text: for a terminal, as Markdown and as LaTeX."""

from __future__ import annotations

from jinja2 import Environment
from rich.table import Table
from rich.text import Text

from metalearn_benchmarks.report.numbers import format_interval, format_number
from metalearn_benchmarks.report.tables import ResultTable, Row
from metalearn_benchmarks.statistics.comparisons import Contrast

MARKDOWN = """\
| method | mean | 95 % interval | median | 95 % interval | interquartile mean | 95 % interval \
| mean less the first row's | 95 % interval | T | seeds | test tasks |
|---|---|---|---|---|---|---|---|---|---|---|---|
{% for r in rows -%}
{% set d = r.difference_from_best -%}
| {{ '**' if r.best or r.tied }}{{ r.title|md }}{{ '**' if r.best or r.tied }}{{ r|mark }} \
| {{ r.mean.value|n }} | {{ r.mean|i }} | {{ r.median.value|n }} | {{ r.median|i }} \
| {{ r.interquartile_mean.value|n }} | {{ r.interquartile_mean|i }} \
| {{ d|diff }} | {{ d|i }} | {{ r.steps }} | {{ r.seeds }} | {{ r.tasks }} |
{% endfor %}
{{ caption }}
"""

LATEX = r"""\begin{tabular}{lrrrrrrrrrrr}
\hline
method & mean & 95\,\% interval & median & 95\,\% interval & interquartile mean & 95\,\% interval
& mean less the first row's & 95\,\% interval & $T$ & seeds & test tasks \\
\hline
{% for r in rows -%}
{% set d = r.difference_from_best -%}
{{ '\\textbf{' if r.best or r.tied }}{{ r.title|tex }}{{ '}' if r.best or r.tied }}{{ r|mark('$\\approx$') }}
& {{ r.mean.value|n }} & {{ r.mean|i }} & {{ r.median.value|n }} & {{ r.median|i }}
& {{ r.interquartile_mean.value|n }} & {{ r.interquartile_mean|i }}
& {{ d|diff }} & {{ d|i }} & {{ r.steps }} & {{ r.seeds }} & {{ r.tasks }} \\
{% endfor -%}
\hline
\end{tabular}
% {{ caption }}
"""


def format_difference(contrast: Contrast | None) -> str:
    """Return a difference with its sign, or a dash where there is none."""
    if contrast is None:
        return "–"
    return f"{'+' if contrast.value >= 0 else ''}{format_number(contrast.value)}"


def tie_mark(row: Row, tied: str = "≈") -> str:
    """Return the mark after the name of a row that cannot be distinguished from the best."""
    return f" {tied}" if row.tied else ""


def rich_table(table: ResultTable) -> Table:
    """Return the table for printing with rich."""
    drawn = Table(title=Text(f"{table.experiment}: {table.setting}"), caption=Text(table.caption))
    drawn.add_column("method")
    for name in ("mean, 95 %", "median, 95 %", "mean less the first", "T", "seeds", "tasks"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        mean, median = (
            Text(f"{format_number(estimate.value)} {format_interval(estimate)}")
            for estimate in (row.mean, row.median)
        )
        title = Text(f"{row.title}{tie_mark(row)}", style="bold" if row.best or row.tied else "")
        counts = (str(row.steps), str(row.seeds), str(row.tasks))
        apart = (
            f"{format_difference(row.difference_from_best)} {format_interval(row.difference_from_best)}"
            if row.difference_from_best
            else "–"
        )
        drawn.add_row(title, mean, median, Text(apart), *counts)
    return drawn


def _escape_latex(text: str) -> str:
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(words.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def table_environment() -> Environment:
    """Return the Jinja environment of the text tables.

    Its filters are `n` for a number, `i` for an interval, `diff` for a difference, `mark` for the mark of a
    tied row, and `tex` and `md` for escaping.
    """
    made = Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701 - Markdown and LaTeX
    made.filters |= {"n": format_number, "i": format_interval, "diff": format_difference, "mark": tie_mark}
    made.filters |= {"tex": _escape_latex, "md": lambda s: s.replace("|", r"\|")}
    return made


def render_table(table: ResultTable, template: str) -> str:
    """Render the table through the template `MARKDOWN` or `LATEX`."""
    return table_environment().from_string(template).render(rows=table.rows, caption=table.caption)
