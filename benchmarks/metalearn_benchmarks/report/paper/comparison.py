"""A table of our medians beside the paper's, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Mapping

from metalearn_benchmarks.claims.published import PublishedResult
from metalearn_benchmarks.report.tables.result_table import ResultTable
from metalearn_benchmarks.report.tables.text import table_environment

COMPARISON_MARKDOWN = """\
| method | our median | 95 % interval | seeds | the paper's median | where |
|---|---|---|---|---|---|
{% for r, p in rows -%}
| {{ r.title|md }} | {{ r.median.value|n }} | {{ r.median|i }} | {{ r.seeds }} | {{ p or "–" }} \
| {{ p.table if p else "–" }} |
{% endfor %}
{{ caption|md }}
"""

COMPARISON_LATEX = r"""\begin{tabular}{lrrrrl}
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
% {{ caption|line }}
"""


def comparison_table(table: ResultTable, paper: Mapping[str, PublishedResult | None], template: str) -> str:
    """Render our medians beside the paper's.

    Args:
        table: our results.
        paper: the paper's result for each method of the table, by name; None where it has none.
        template: `COMPARISON_MARKDOWN` or `COMPARISON_LATEX`.
    """
    rows = [(row, paper[row.method]) for row in table.rows]
    return table_environment().from_string(template).render(rows=rows, caption=table.caption)
