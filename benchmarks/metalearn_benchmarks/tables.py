"""The table of an experiment: a row per method, from records alone. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import attrs
from jinja2 import Environment
from rich.table import Table
from rich.text import Text

from metalearn_benchmarks.records import Record
from metalearn_benchmarks.statistics import Estimate, over_runs

MARKDOWN = """\
| method | mean | 95 % interval | median | 95 % interval | T | seeds | test tasks |
|---|---|---|---|---|---|---|---|
{% for r in rows -%}
| {{ r.title|md }} | {{ r.mean.value|n }} | {{ r.mean|i }} | {{ r.median.value|n }} | {{ r.median|i }} \
| {{ r.steps }} | {{ r.seeds }} | {{ r.tasks }} |
{% endfor %}
{{ caption }}
"""

LATEX = r"""\begin{tabular}{lrrrrrrr}
\hline
method & mean & 95\,\% interval & median & 95\,\% interval & $T$ & seeds & test tasks \\
\hline
{% for r in rows -%}
{{ r.title|tex }} & {{ r.mean.value|n }} & {{ r.mean|i }} & {{ r.median.value|n }} & {{ r.median|i }}
& {{ r.steps }} & {{ r.seeds }} & {{ r.tasks }} \\
{% endfor -%}
\hline
\end{tabular}
% {{ caption }}
"""


@attrs.frozen
class Row:
    """One method: its mean and median error with 95 % intervals."""

    method: str
    title: str
    mean: Estimate
    median: Estimate
    over: str
    steps: int
    seeds: int
    tasks: int
    seconds: float
    diverged: int


@attrs.frozen
class ResultTable:
    """The rows of one experiment and setting, best mean first."""

    experiment: str
    setting: str
    score: str
    higher_is_better: bool
    rows: list[Row]

    @property
    def caption(self) -> str:
        """What the numbers are and what the intervals are over."""
        over = sorted({row.over for row in self.rows})
        stopped = [f"{r.title}: {r.diverged} of {r.seeds} runs diverged" for r in self.rows if r.diverged]
        parts = [
            f"Experiment {self.experiment}, {self.setting}: {self.score} on the query set after T steps,"
            f" {'higher' if self.higher_is_better else 'lower'} is better.",
            f"Intervals are over {' or '.join(over)}"
            + ("." if len(over) == 1 else ", as the number of seeds of a row allows."),
            *(f"{line}, tested at its best state." for line in stopped),
        ]
        return " ".join(parts)


def result_tables(records: Iterable[Record]) -> list[ResultTable]:
    """One table for each experiment and setting."""
    found = []
    for (experiment, setting), group in groupby(records, lambda r: (r.experiment, r.setting)):
        runs = list(group)
        up = runs[0].higher_is_better
        rows = [_row(list(of_method)) for _, of_method in groupby(runs, lambda r: r.method)]
        rows.sort(key=lambda row: (math.isnan(row.mean.value), -row.mean.value if up else row.mean.value))
        found.append(ResultTable(experiment, setting, runs[0].score, up, rows))
    return found


def _row(runs: Sequence[Record]) -> Row:
    mean, median, over = over_runs([run.final for run in runs])
    first = runs[0]
    return Row(
        method=first.method,
        title=first.title,
        mean=mean,
        median=median,
        over=over,
        steps=first.steps,
        seeds=len(runs),
        tasks=len(first.final),
        seconds=sum(run.result["seconds"] for run in runs) / len(runs),
        diverged=sum(run.result["diverged"] is not None for run in runs),
    )


def number(value: float) -> str:
    """Three decimals, fewer where the number is large."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def interval(estimate: Estimate) -> str:
    """`[low, high]`, or a dash where there is none."""
    if estimate.low != estimate.low:
        return "–"
    return f"[{number(estimate.low)}, {number(estimate.high)}]"


def for_terminal(table: ResultTable) -> Table:
    """The table as rich draws it."""
    drawn = Table(title=Text(f"{table.experiment}: {table.setting}"), caption=Text(table.caption))
    drawn.add_column("method")
    for name in ("mean, 95 %", "median, 95 %", "T", "seeds", "tasks"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        mean, median = (
            Text(f"{number(estimate.value)} {interval(estimate)}") for estimate in (row.mean, row.median)
        )
        drawn.add_row(Text(row.title), mean, median, str(row.steps), str(row.seeds), str(row.tasks))
    return drawn


def _for_latex(text: str) -> str:
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(words.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def environment() -> Environment:
    """Jinja with the filters of tables: `n` a number, `i` an interval, `tex` and `md` escape."""
    made = Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701 - Markdown and LaTeX
    made.filters |= {"n": number, "i": interval, "tex": _for_latex, "md": lambda s: s.replace("|", r"\|")}
    return made


def as_text(table: ResultTable, template: str) -> str:
    """The table through `MARKDOWN` or `LATEX`."""
    return environment().from_string(template).render(rows=table.rows, caption=table.caption)
