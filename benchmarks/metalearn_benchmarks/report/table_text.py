"""Tables as text: for a terminal, Markdown and LaTeX."""

from __future__ import annotations

from jinja2 import Environment
from rich.table import Table
from rich.text import Text

from metalearn_benchmarks.report.numbers import interval, number
from metalearn_benchmarks.report.tables import ResultTable, Row
from metalearn_benchmarks.statistics.comparisons import Contrast

MARKDOWN = """\
| method | mean | 95 % interval | median | 95 % interval | interquartile mean | 95 % interval \
| mean less the first row's | 95 % interval | T | seeds | test tasks |
|---|---|---|---|---|---|---|---|---|---|---|---|
{% for r in rows -%}
| {{ '**' if r.best or r.tied }}{{ r.title|md }}{{ '**' if r.best or r.tied }}{{ r|mark }} \
| {{ r.mean.value|n }} | {{ r.mean|i }} | {{ r.median.value|n }} | {{ r.median|i }} \
| {{ r.interquartile_mean.value|n }} | {{ r.interquartile_mean|i }} \
| {{ r.behind|behind }} | {{ r.behind|i }} | {{ r.steps }} | {{ r.seeds }} | {{ r.tasks }} |
{% endfor %}
{{ caption }}
"""

LATEX = r"""\begin{tabular}{lrrrrrrrrrrr}
\hline
method & mean & 95\,\% interval & median & 95\,\% interval & interquartile mean & 95\,\% interval
& mean less the first row's & 95\,\% interval & $T$ & seeds & test tasks \\
\hline
{% for r in rows -%}
{{ '\\textbf{' if r.best or r.tied }}{{ r.title|tex }}{{ '}' if r.best or r.tied }}{{ r|mark('$\\approx$') }}
& {{ r.mean.value|n }} & {{ r.mean|i }} & {{ r.median.value|n }} & {{ r.median|i }}
& {{ r.interquartile_mean.value|n }} & {{ r.interquartile_mean|i }}
& {{ r.behind|behind }} & {{ r.behind|i }} & {{ r.steps }} & {{ r.seeds }} & {{ r.tasks }} \\
{% endfor -%}
\hline
\end{tabular}
% {{ caption }}
"""


def behind(contrast: Contrast | None) -> str:
    """How far a row is behind, with its sign, or a dash for the first."""
    if contrast is None:
        return "–"
    return f"{'+' if contrast.value >= 0 else ''}{number(contrast.value)}"


def mark(row: Row, tied: str = "≈") -> str:
    """What stands behind the name of a row that cannot be told from the best."""
    return f" {tied}" if row.tied else ""


def for_terminal(table: ResultTable) -> Table:
    """The table as rich draws it."""
    drawn = Table(title=Text(f"{table.experiment}: {table.setting}"), caption=Text(table.caption))
    drawn.add_column("method")
    for name in ("mean, 95 %", "median, 95 %", "mean less the first", "T", "seeds", "tasks"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        mean, median = (
            Text(f"{number(estimate.value)} {interval(estimate)}") for estimate in (row.mean, row.median)
        )
        title = Text(f"{row.title}{mark(row)}", style="bold" if row.best or row.tied else "")
        counts = (str(row.steps), str(row.seeds), str(row.tasks))
        apart = f"{behind(row.behind)} {interval(row.behind)}" if row.behind else "–"
        drawn.add_row(title, mean, median, Text(apart), *counts)
    return drawn


def _for_latex(text: str) -> str:
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(words.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def environment() -> Environment:
    """Jinja with the filters of tables: `n` a number, `i` an interval, `tex` and `md` escape, and so on."""
    made = Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701 - Markdown and LaTeX
    made.filters |= {"n": number, "i": interval, "behind": behind, "mark": mark}
    made.filters |= {"tex": _for_latex, "md": lambda s: s.replace("|", r"\|")}
    return made


def as_text(table: ResultTable, template: str) -> str:
    """The table through `MARKDOWN` or `LATEX`."""
    return environment().from_string(template).render(rows=table.rows, caption=table.caption)
