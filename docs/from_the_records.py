"""Parts of "The paper against us" that are made from the records in `benchmarks/results`, as Markdown."""

from __future__ import annotations

import json
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from metalearn_benchmarks import claims_text
from metalearn_benchmarks.claim_rules import claim_rules
from metalearn_benchmarks.claims import decide_all
from metalearn_benchmarks.comparisons import typical
from metalearn_benchmarks.figures import rendered
from metalearn_benchmarks.paper_figures import paper_figures
from metalearn_benchmarks.reading_records import read_records
from metalearn_benchmarks.records import Record
from metalearn_benchmarks.tables import MARKDOWN, as_text, interval, number, result_tables

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
NEVER = 3.9
"""A mean error above this is that of a constant: predicting 0 has E[A²] / 2 = 4.25."""
HIGHER = RESULTS / "higher-loop.json"
"""What `metalearn speed -p "higher loop" -p compiled --what "outer step" --json` gave."""


def verdicts(records: Sequence[Record]) -> str:
    """Every claim that the records say anything of."""
    return claims_text.as_markdown(decide_all(claim_rules(), records))


def tables(records: Sequence[Record]) -> str:
    """Each experiment's table, as `metalearn report` writes it."""
    return "\n".join(
        f"### `{table.experiment}`, {table.setting}\n\n{as_text(table, MARKDOWN)}"
        for table in result_tables(records)
    )


def figures(records: Sequence[Record], folder: Path) -> str:
    """The paper's figures, drawn into a folder, and what shows them there."""
    text = ""
    for one in paper_figures(records)[0]:
        (folder / f"{one.stem}.png").write_bytes(rendered(one.figure, "png", one.stem))
        text += f"### {one.title}\n\n![{one.title}](_generated/{one.stem}.png)\n\n{one.caption}\n\n"
    return text


def sine(records: Sequence[Record]) -> str:
    """Figure 3.3's methods, all T, as a table: what is typical, and the best and the worst seed."""
    rows = []
    of_figure = [r for r in records if (r.experiment, r.setting) == ("figure-3.3", "sine-5-shot")]
    for _, group in groupby(of_figure, key=lambda r: r.method):
        runs = list(group)
        if runs[0].result["protocol"] != "paper":
            continue
        finals = np.array([run.final for run in runs])
        found = typical(lambda tasks, of=finals: np.median(of[:, tasks], axis=1), *finals.shape)
        medians, never = np.median(finals, axis=1), int((finals.mean(1) > NEVER).sum())
        steps, title = runs[0].steps, runs[0].title.partition(" (")[0]
        errors = (number(found.value), interval(found), number(medians.min()), number(medians.max()))
        rows.append((-steps, found.value, (title, str(steps), str(len(runs)), *errors, str(never))))
    seeds = ("best seed", "worst seed", "never learned")
    head = ("method", "T", "seeds", "typical error", "95 % interval", *seeds)
    return _table(head, [cells for *_, cells in sorted(rows)])


def validation_errors(records: Sequence[Record]) -> str:
    """The authors' own best validation errors beside ours, the text's way and their program's way."""
    path = resources.files("metalearn_benchmarks") / "paper/validation-errors.toml"
    theirs = tomllib.loads(path.read_text("utf-8"))
    ours: dict[tuple[Any, ...], dict[int, float]] = defaultdict(dict)
    for record in records:
        if record.experiment in ("figure-3.2", "figure-3.3") and record.setting == "sine-5-shot":
            # a row of both figures is computed for both: each seed counts once
            ours[_row(record), record.result["protocol"]].setdefault(record.seed, _best(record))
    rows = []
    for steps, orders in theirs.items():
        for order, errors in orders.items():
            for place, error in [(-1, errors["maml"]), *enumerate(errors["layers"])]:
                row = (int(steps), order, place)
                cells = [_told(ours.get((row, way), {})) for way in ("paper", "authors")]
                if any(cells):
                    name = "MAML" if place < 0 else f"TURTLE, {place} hidden layer{'' if place == 1 else 's'}"
                    rows.append((steps, order, name, f"{error:.2f}", *(cell or "–" for cell in cells)))
    head = ("T", "order", "method", "theirs", "ours, as the text has it", "ours, `--protocol authors`")
    return _table(head, rows)


def _told(errors: Mapping[int, float]) -> str:
    """The median over seeds, and the range."""
    found = list(errors.values())
    return f"{np.median(found):.2f} ({min(found):.2f} to {max(found):.2f})" if found else ""


def _row(record: Record) -> tuple[int, str, int] | None:
    """T, order, and hidden layers of the gradient's TURTLE, −1 for MAML."""
    method = record.cell["method"]
    settings, options = method["settings"], method["options"]
    if method["rule"] == "feed-forward":
        return settings["steps"], settings["order"], len(options["hidden"])
    return (settings["steps"], settings["order"], -1) if method["rule"] == "gradient-descent" else None


def _best(record: Record) -> float:
    return min(score for _, score in record.result["validations"] if score is not None)


def costs(records: Sequence[Record]) -> str:
    """Core-hours of each grid; seeds that trained as one program share its time."""
    hours: dict[str, float] = defaultdict(float)
    runs: dict[str, int] = defaultdict(int)
    for experiment, seconds, seeds in _programs(records):
        hours[experiment] += seconds / 3600
        runs[experiment] += seeds
    rows = [(f"`{name}`", str(runs[name]), f"{hours[name]:.1f}") for name in sorted(hours)]
    rows.append(("all", str(sum(runs.values())), f"{sum(hours.values()):.1f}"))
    return _table(("grid", "runs of 70,000 tasks", "core-hours, as recorded"), rows)


def _programs(records: Sequence[Record]) -> Iterator[tuple[str, float, int]]:
    programs: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        together = tuple(record.result["seeds_together"])
        programs[record.experiment, record.setting, record.method, together].append(record)
    for (experiment, *_), group in programs.items():
        yield experiment, max(record.result["seconds"] for record in group), len(group)


def higher_loop() -> str:
    """A seed of 70,000 tasks with a loop over tasks through `higher`, beside this engine, in one run."""
    milliseconds: dict[tuple[str, int, str], dict[str, float]] = defaultdict(dict)
    for timing in json.loads(HIGHER.read_text("utf-8")):
        key = (timing["rule"], timing["steps"], timing["order"])
        milliseconds[key][timing["peer"]] = timing["median"]
    rows = []
    for (rule, steps, order), of in sorted(milliseconds.items()):
        loop, own = (of[peer] * 70_000 / 3_600_000 for peer in ("higher loop", "compiled"))
        rows.append((rule, str(steps), order, f"{own:.2f}", f"{loop:.2f}", f"{loop / own:.1f}"))
    return _table(("method", "T", "order", "this engine, hours a seed", "loop, hours a seed", "ratio"), rows)


def pieces(folder: Path) -> dict[str, str]:
    """Every part, by name; figures are drawn into the folder."""
    records = read_records(RESULTS)
    return {
        "verdicts": verdicts(records),
        "sine": sine(records),
        "results": tables(records),
        "figures": figures(records, folder),
        "validation-errors": validation_errors(records),
        "costs": costs(records),
        "higher-loop": higher_loop(),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rows))
