"""Parts of pages that are made from what the packages say of themselves, as Markdown."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

from metalearn_benchmarks.claims.published import deviations, published_result
from metalearn_benchmarks.claims.rules import claim_rules
from metalearn_benchmarks.experiments.catalogue import find_experiment
from metalearn_core.testing.kit import all_laws, tier

TABLES = {
    "Table 3.1: trained and tested on the same dataset": (
        "mini-imagenet-5-way-1-shot", "mini-imagenet-5-way-5-shot", "cub-5-way-1-shot", "cub-5-way-5-shot",
    ),
    "Table 3.4: tested on another dataset": (
        "mini-imagenet-5-way-1-shot-to-cub", "mini-imagenet-5-way-5-shot-to-cub",
        "cub-5-way-1-shot-to-mini-imagenet", "cub-5-way-5-shot-to-mini-imagenet",
    ),
}  # fmt: skip


def claims_table() -> str:
    """Every claim of the paper, and how records decide it."""
    rows = ((f"`{name}`", each.says, each.source, each.why) for name, each in claim_rules().claim.items())
    return _table(("claim", "the paper says", "where", "how it is decided"), rows)


def deviations_text() -> str:
    """Every deviation, a section of a few lines each."""
    return "\n".join(
        f"### {each.title}\n\nThe paper: {each.paper}\n\nHere: {each.here}\n\nWhy: {each.why}\n"
        for each in deviations()
    )


def laws_table() -> str:
    """The laws of update rules, by the first line of what each says of itself."""
    rows = []
    for name, law in all_laws(slow=True).items():
        rows.append((f"`{name}`", (inspect.getdoc(law) or "").partition("\n")[0], tier(name)))
    return _table(("law", "what holds", "tier"), rows)


def published_tables() -> str:
    """The paper's tables of accuracies, in percent."""
    text = ""
    _, experiment = find_experiment("table-3.1")
    for title, settings in TABLES.items():
        rows = []
        for method in experiment.methods:
            found = [published_result(setting, method) for setting in settings]
            if all(found):
                rows.append(
                    (f"`{method}`", *(f"{100 * p.value:.0f} ± {100 * p.half_width:.0f}" for p in found))
                )
        text += f"### {title}\n\n{_table(('method', *settings), rows)}\n"
    return text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
