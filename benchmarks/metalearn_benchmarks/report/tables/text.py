"""Result tables as text: for a terminal, as Markdown and as LaTeX."""

from __future__ import annotations

from jinja2 import Environment
from rich import box
from rich.text import Text

from metalearn_benchmarks.host.escape import for_latex, for_markdown, visible
from metalearn_benchmarks.host.table_fitting import Column, FittedTable
from metalearn_benchmarks.report.numbers import format_interval, format_number
from metalearn_benchmarks.report.tables.findings import findings
from metalearn_benchmarks.report.tables.result_table import ResultTable, Row
from metalearn_benchmarks.statistics.comparisons import Contrast

MARKDOWN = """\
| method | {{ headline }} | 95 % interval | never learned | minus {{ reference|md }} | 95 % interval \
| mean | 95 % interval | median | 95 % interval | interquartile mean over tasks | 95 % interval \
| T | seeds | test tasks |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
{% for r in rows -%}
{% set d = r.difference -%}
| {{ '**' if r.best or r.tied }}{{ r.title|md }}{{ '**' if r.best or r.tied }}{{ r|mark }} \
| {{ r.headline.value|n }} | {{ r.headline|i }} | {{ r|never }} | {{ d|diff }} | {{ d|i }} \
| {{ r.mean.value|n }} | {{ r.mean|i }} | {{ r.median.value|n }} | {{ r.median|i }} \
| {{ r.interquartile_mean.value|n }} | {{ r.interquartile_mean|i }} \
| {{ r.steps }} | {{ r.seeds }} | {{ r.tasks }} |
{% endfor %}
{{ caption|md }}
"""

LATEX = r"""\begin{tabular}{lrrrrrrrrrrrrrr}
\hline
method & {{ headline|tex }} & 95\,\% interval & never learned & minus {{ reference|tex }} & 95\,\% interval
& mean & 95\,\% interval & median & 95\,\% interval & interquartile mean over tasks & 95\,\% interval
& $T$ & seeds & test tasks \\
\hline
{% for r in rows -%}
{% set d = r.difference -%}
{{ '\\textbf{' if r.best or r.tied }}{{ r.title|tex }}{{ '}' if r.best or r.tied }}{{ r|mark('$\\approx$') }}
& {{ r.headline.value|n }} & {{ r.headline|i }} & {{ r|never }} & {{ d|diff }} & {{ d|i }}
& {{ r.mean.value|n }} & {{ r.mean|i }} & {{ r.median.value|n }} & {{ r.median|i }}
& {{ r.interquartile_mean.value|n }} & {{ r.interquartile_mean|i }}
& {{ r.steps }} & {{ r.seeds }} & {{ r.tasks }} \\
{% endfor -%}
\hline
\end{tabular}
% {{ caption|line }}
"""


def format_difference(contrast: Contrast | None) -> str:
    """Return a difference with its sign, or a dash where there is none."""
    if contrast is None:
        return "–"
    return f"{'+' if contrast.value >= 0 else ''}{format_number(contrast.value)}"


def tie_mark(row: Row, tied: str = "≈") -> str:
    """Return the mark after the name of a row that cannot be distinguished from the best."""
    return f" {tied}" if row.tied else ""


def format_never_learned(row: Row) -> str:
    """Return how many runs of a row never learned, or a dash where that is not known."""
    return "–" if row.never_learned is None else str(row.never_learned)


def _columns(headline: str, reference: str) -> tuple[Column, ...]:
    """The columns on a terminal. In a narrow one each has its turn by rank, and is shown where it fits."""
    return (
        Column("method", wraps=True), Column(f"{headline}, 95 %", right=True),
        Column(f"minus {reference}", right=True, rank=1), Column("never learned", right=True, rank=3),
        Column("T", right=True, rank=4), Column("seeds", right=True, rank=2),
        Column("tasks", right=True, rank=5),
    )  # fmt: skip


def rich_table(table: ResultTable) -> FittedTable:
    """Return the table for printing with rich."""
    return FittedTable(
        _columns(table.headline, table.reference), [_cells(row) for row in table.rows],
        elsewhere="report.html has all", box=box.HEAVY_HEAD, title=f"{table.experiment}: {table.setting}",
        below=[*_found(table), *table.notes, *table.sentences],
    )  # fmt: skip


def _found(table: ResultTable) -> list[str]:
    """What the rows tell, unless the table begins with the note that they mean little yet."""
    if table.small or len(table.rows) < 2:
        return []
    return [f"{one.where}: {one.text}" if one.where else one.text for one in findings(table)]


def _cells(row: Row) -> list[Text]:
    other = row.difference
    apart = f"{format_difference(other)} {format_interval(other)}" if other else "–"
    title = Text(visible(f"{row.title}{tie_mark(row)}"), style="bold" if row.best or row.tied else "")
    headline = f"{format_number(row.headline.value)} {format_interval(row.headline)}"
    counts = (format_never_learned(row), str(row.steps), str(row.seeds), str(row.tasks))
    return [title, *map(Text, (headline, apart, *counts))]


def table_environment() -> Environment:
    """Return the Jinja environment of the text tables.

    Its filters are `n` for a number, `i` for an interval, `diff` for a difference, `mark` for the mark of a
    tied row, `never` for the count of runs that never learned, and for escaping `tex`, `md`, and `line` for a
    comment.
    """
    made = Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701 - Markdown and LaTeX
    made.filters |= {"n": format_number, "i": format_interval, "diff": format_difference, "mark": tie_mark}
    made.filters |= {"never": format_never_learned}
    made.filters |= {"tex": for_latex, "md": for_markdown, "line": visible}
    return made


def render_table(table: ResultTable, template: str) -> str:
    """Render the table through the template `MARKDOWN` or `LATEX`."""
    made = table_environment().from_string(template)
    return made.render(
        headline=table.headline, reference=table.reference, rows=table.rows, caption=table.caption
    )
