"""Parts of "The paper against us" that are made from the records in `benchmarks/results`, as Markdown."""

from __future__ import annotations

import functools
import json
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from claims_at_a_glance import claims_at_a_glance
from numpy.typing import NDArray
from paired_ratios import paired_ratios
from paper_times import times

from metalearn_benchmarks.claims import text as claims_text
from metalearn_benchmarks.claims.published import trained_as_published
from metalearn_benchmarks.claims.rules import claim_rules
from metalearn_benchmarks.claims.verdicts import decide_all
from metalearn_benchmarks.plotting.rendering import render
from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.numbers import format_interval, format_number
from metalearn_benchmarks.report.paper.figures import paper_figures
from metalearn_benchmarks.report.tables.building import result_tables
from metalearn_benchmarks.report.tables.text import MARKDOWN, render_table
from metalearn_benchmarks.statistics.headline import SINE_CONSTANT, typical_error

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
HIGHER = RESULTS / "higher-loop.json"
"""What `metalearn speed` gave, by the command that the page has above its table."""


def verdicts(records: Sequence[Record]) -> str:
    """Every claim that the records say anything of."""
    return claims_text.as_markdown(decide_all(claim_rules(), records))


def tables(records: Sequence[Record]) -> str:
    """Each experiment's table, as `metalearn report` writes it."""
    return "\n".join(
        f"### `{table.experiment}`, {table.setting}\n\n{render_table(table, MARKDOWN)}"
        for table in result_tables(records)
    )


def figures(records: Sequence[Record], folder: Path) -> str:
    """The paper's figures, drawn into a folder, and what shows them there."""
    text = ""
    for one in paper_figures(records)[0]:
        (folder / f"{one.stem}.png").write_bytes(render(one.figure, "png", one.stem))
        text += f"### {one.title}\n\n![{one.title}](_generated/{one.stem}.png)\n\n{one.caption}\n\n"
    return text


def sine(records: Sequence[Record]) -> str:
    """Figure 3.3's methods and the LSTM's variants, all T: what is typical, the best and the worst seed."""
    shown = ("figure-3.3", "lstm-ablation")
    of_figure = [r for r in records if r.experiment in shown and r.setting == "sine-5-shot"]
    rows = []
    for runs in _by(lambda r: r.method, of_figure).values():
        if runs[0].result["protocol"] == "paper":
            title = runs[0].title.partition(" (")[0]
            rows.append((-runs[0].steps, *_typical(runs, (title, str(runs[0].steps)))))
    return _table(("method", "T", *TYPICAL), [cells for *_, cells in sorted(rows)])


TYPICAL = ("seeds", "typical error", "95 % interval", "best seed", "worst seed", "never learned")


def _typical(runs: Sequence[Record], names: Sequence[str]) -> tuple[float, tuple[str, ...]]:
    """What is typical of the runs, and the row of a table that says so after these names."""
    finals = np.array([run.final for run in runs], dtype=float)
    finals = np.where(np.isfinite(finals), finals, np.inf)
    found = typical_error(finals)
    medians = np.median(finals, axis=1)
    never = int(_never_learned(finals).sum())
    value, best, worst = (
        format_number(x) if np.isfinite(x) else "not finite"
        for x in (found.value, medians.min(), medians.max())
    )
    errors = (value, format_interval(found.interval().clip_to_range(runs[0].score)), best, worst)
    return found.value, (*names, str(len(runs)), *errors, str(never))


def _never_learned(finals: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of each run, from its scores `[runs, tasks]`."""
    lost: NDArray[np.bool_] = finals.mean(1) > SINE_CONSTANT["mean"]
    return lost & (np.median(finals, axis=1) > SINE_CONSTANT["median"])


def _by(key: Callable[[Record], Any], records: Iterable[Record]) -> dict[Any, list[Record]]:
    """Records by what is alike in them; a seed that two experiments have counts once."""
    groups: dict[Any, dict[int, Record]] = defaultdict(dict)
    for record in records:
        groups[key(record)].setdefault(record.seed, record)
    return {kind: list(of_seed.values()) for kind, of_seed in groups.items()}


def _on_five_shots(records: Sequence[Record], rule: str) -> Iterator[Record]:
    """The meta-trained runs of a rule on 5-shot sine waves, as the text has them."""
    for record in records:
        alike = record.cell["method"]["rule"] == rule and record.setting == "sine-5-shot"
        if alike and record.result["protocol"] == "paper" and trained_as_published(record.cell):
            yield record


def lstm(records: Sequence[Record]) -> str:
    """Every LSTM by what it reads, its order and its T, whatever experiment it is of."""

    def kind(record: Record) -> tuple[str, str, str, int]:
        options, settings = record.cell["method"]["options"], record.cell["method"]["settings"]
        gradient = "logarithm" if options["preprocess"] == "log" else "raw"
        loss = "yes" if "loss" in options["inputs"] else "no"
        return gradient, loss, settings["order"], settings["steps"]

    groups = _by(kind, (r for r in _on_five_shots(records, "lstm") if _clamp(r) == "no"))
    rows = [_typical(groups[key], tuple(map(str, key)))[1] for key in sorted(groups, key=lambda k: (k[3], k))]
    return _table(("gradient", "loss read", "order", "T", *TYPICAL), rows)


def _clamp(record: Record) -> str:
    """Of the gradients that the LSTM reads; none in the text."""
    clamp = record.cell["method"]["settings"].get("inner_clip")
    return f"to ±{clamp['limit']:g}" if clamp else "no"


def stability(records: Sequence[Record]) -> str:
    """The LSTM of second order on raw gradients by T, how many runs were stopped, and what a clamp does."""

    def is_enhanced(record: Record) -> bool:
        method = record.cell["method"]
        return (method["options"]["preprocess"], method["settings"]["order"]) == ("none", "second")

    fitting = filter(is_enhanced, _on_five_shots(records, "lstm"))
    rows = []
    for (steps, clamp), runs in sorted(_by(lambda r: (r.steps, _clamp(r)), fitting).items()):
        stopped = str(sum(bool(run.result["diverged"]) for run in runs))
        rows.append(_typical(runs, (str(steps), clamp, stopped))[1])
    return _table(("T", "gradients clamped", "stopped", *TYPICAL), rows)


def turtle(records: Sequence[Record]) -> str:
    """Second-order TURTLE of five layers, and MAML, at T = 5, by what it reads and whether α is learned."""
    read = ("inputs", "preprocess", "history", "learn_lr", "alpha_start")

    def kind(record: Record) -> tuple[str, ...]:
        method = record.cell["method"]
        return method["rule"], *(str(method["options"].get(key)) for key in read)

    def fits(record: Record) -> bool:
        options, settings = record.cell["method"]["options"], record.cell["method"]["settings"]
        alike = options.get("hidden", [20] * 5) == [20] * 5 and options.get("optimizer", "sgd") == "sgd"
        return alike and (record.steps, settings["order"]) == (5, "second")

    fitting = [
        *filter(fits, _on_five_shots(records, "feed-forward")),
        *filter(fits, _on_five_shots(records, "gradient-descent")),
    ]
    rows = [_typical(runs, _reads(runs[0].cell["method"])) for runs in _by(kind, fitting).values()]
    return _table(("reads", "average", "α", *TYPICAL), [cells for _, cells in sorted(rows)])


def _reads(method: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a network without a state reads, which averages it keeps, and its α; MAML has no network."""
    options = method["options"]
    if method["rule"] == "gradient-descent":
        reads, memory, start = "MAML: no network", "none", f"{options['inner_lr']:g}"
    else:
        reads = ", ".join(options["inputs"]) + (", as logarithms" if options["preprocess"] == "log" else "")
        memory = {"none": "none", "grad": "of gradients", "update": "of updates"}[options["history"]]
        start = {"ones": "1", "uniform": "U[0, 1)"}.get(options["alpha_start"], options["alpha_start"])
    return reads, memory, f"learned, from {start}" if options["learn_lr"] == "parameter" else start


def long_unrolls(records: Sequence[Record]) -> str:
    """Second-order MAML and TURTLE by T, and what keeps them trainable beyond 10 updates."""
    names = ("MAML", "TURTLE")

    def name(record: Record) -> str:
        return record.title.partition(" (")[0]

    fitting = (
        r for r in records
        if r.setting == "sine-5-shot" and r.result["protocol"] == "paper"
        and (r.experiment == "long-unrolls" or (r.experiment == "figure-3.3" and name(r) in names))
    )  # fmt: skip
    groups = _by(lambda r: (name(r).partition(",")[0], r.steps, name(r)), fitting)
    rows = [_typical(groups[key], (key[2], str(key[1])))[1] for key in sorted(groups)]
    return _table(("method", "T", *TYPICAL), rows)


def spread(records: Sequence[Record]) -> str:
    """Second-order TURTLE by depth and T: runs that never learned, and how far the others are apart."""
    steps = (1, 5, 10)

    def fits(record: Record) -> bool:
        alike = record.experiment in ("figure-3.2", "figure-3.3") and record.steps in steps
        return alike and record.cell["method"]["settings"]["order"] == "second"

    fitting = filter(fits, _on_five_shots(records, "feed-forward"))
    groups = _by(lambda r: (len(r.cell["method"]["options"]["hidden"]), r.steps), fitting)
    head = ("hidden layers", *(cell for t in steps for cell in (f"stuck, T = {t}", f"apart, T = {t}")))
    rows = [
        (str(depth), *(cell for t in steps for cell in _apart(groups[depth, t])))
        for depth in sorted({depth for depth, _ in groups})
    ]
    return _table(head, rows)


def _apart(runs: Sequence[Record]) -> tuple[str, str]:
    finals = np.array([run.final for run in runs], dtype=float)
    learned = np.median(finals[~_never_learned(finals)], axis=1)
    deviation = learned.std(ddof=1)
    stuck = f"{len(runs) - len(learned)} of {len(runs)}"
    return stuck, f"{deviation:.3f}, {100 * deviation / learned.mean():.0f} %"


def clipping(records: Sequence[Record]) -> str:
    """MAML without one or both of its clamps, by T."""
    fitting = (
        r for r in records
        if r.experiment == "maml-clipping"
        or (r.experiment, r.setting, r.method) == ("figure-3.3", "sine-5-shot", "maml")
    )  # fmt: skip
    groups = _by(lambda r: (r.steps, r.title.partition(" (")[0]), fitting)
    rows = [(steps, *_typical(runs, (title, str(steps)))) for (steps, title), runs in groups.items()]
    return _table(("method", "T", *TYPICAL), [cells for *_, cells in sorted(rows)])


def shots(records: Sequence[Record]) -> str:
    """MAML, TURTLE and the LSTM, as the paper has them, at T = 5, by the number of examples."""
    fitting = (
        r for r in records
        if r.experiment in ("sine-shots", "figure-3.3") and r.method in ("maml", "turtle", "lstm")
    )  # fmt: skip
    groups = _by(lambda r: (r.cell["family"]["options"]["support"], r.title), fitting)
    rows = [(count, *_typical(runs, (str(count), title))) for (count, title), runs in groups.items()]
    return _table(("examples", "method", *TYPICAL), [cells for *_, cells in sorted(rows)])


def validation_errors(records: Sequence[Record]) -> str:
    """The authors' own best validation errors beside ours, the text's way and their program's way."""
    path = resources.files("metalearn_benchmarks.claims") / "paper/validation-errors.toml"
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
    """Core-hours of each grid, and what training it would take with a loop over tasks through `higher`.

    The loop is an estimate from the sample, a line in T; programs of several seeds share their time.
    """
    hours: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    runs: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for program in _programs(records):
        one = program[0]
        spent = max(record.result["seconds"] for record in program) / 3600
        # some of a program's seeds may stand in another archive
        spent *= len(program) / len(one.result["seeds_together"])
        loops = [_hours_by_loop(record) for record in program]
        for name in (f"`{one.experiment}`", "all"):
            runs[name][0] += len(program)
            hours[name][0] += spent
            if None not in loops:
                runs[name][1] += len(program)
                hours[name][1] += spent
                hours[name][2] += sum(filter(None, loops))
    names = [*sorted(name for name in runs if name != "all"), "all"]
    rows = [
        (
            n,
            str(runs[n][0]),
            f"{hours[n][0]:.1f}",
            str(runs[n][1]),
            f"{hours[n][1]:.1f}",
            f"{hours[n][2]:.0f}",
        )
        for n in names
    ]
    head = (
        "grid",
        "runs of 70,000 tasks",
        "core-hours",
        "of them sampled",
        "these took",
        "a loop would take",
    )
    return _table(head, rows)


def _programs(records: Sequence[Record]) -> list[list[Record]]:
    """The runs that trained as one program."""
    programs: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        together = tuple(record.result["seeds_together"])
        programs[record.experiment, record.setting, record.method, together].append(record)
    return list(programs.values())


def _hours_by_loop(record: Record) -> float | None:
    """Training a seed with the loop, as far as it came, in hours; None where none like it was timed."""
    rule, settings = _sampled_rule(record), record.cell["method"]["settings"]
    times = {
        steps: of["higher loop"]
        for (name, steps, order), of in _milliseconds().items()
        if (name, order) == (rule, settings["order"])
    }
    if len(times) < 2 or not trained_as_published(record.cell):
        return None
    slope, start = np.polyfit(list(times), list(times.values()), 1)
    # a run that was stopped, to its last validation
    tasks = record.result["validations"][-1][0] if record.result["diverged"] else settings["tasks"]
    return float(start + slope * settings["steps"]) * tasks / 3_600_000


def _sampled_rule(record: Record) -> str | None:
    """What `metalearn speed` calls the method, where it times one like it."""
    method = record.cell["method"]
    if method["rule"] == "feed-forward":
        return "turtle" if method["options"]["hidden"] == [20] * 5 else None
    return {"gradient-descent": "maml", "lstm": "lstm"}.get(method["rule"])


@functools.cache
def _milliseconds() -> dict[tuple[str, int, str], dict[str, float]]:
    """An outer step's time by rule, T and order, of each engine."""
    found: dict[tuple[str, int, str], dict[str, float]] = defaultdict(dict)
    for timing in json.loads(HIGHER.read_text("utf-8")):
        found[timing["rule"], timing["steps"], timing["order"]][timing["peer"]] = timing["median"]
    return found


def higher_loop() -> str:
    """A seed of 70,000 tasks with a loop over tasks through `higher`, beside this engine, in one run."""
    rows = []
    for (rule, steps, order), of in sorted(_milliseconds().items()):
        loop, own = (of[peer] * 70_000 / 60_000 for peer in ("higher loop", "compiled"))
        rows.append((rule, str(steps), order, f"{own:.1f}", f"{loop:.1f}", f"{loop / own:.1f}"))
    head = ("method", "T", "order", "this engine, minutes a seed", "loop, minutes a seed", "ratio")
    return _table(head, rows)


def pieces(folder: Path) -> dict[str, str]:
    """Every part, by name; figures are drawn into the folder."""
    records = read_records(RESULTS)
    return {
        "claims-at-a-glance": claims_at_a_glance(records),
        "verdicts": verdicts(records),
        "sine": sine(records),
        "lstm": lstm(records),
        "turtle": turtle(records),
        "long-unrolls": long_unrolls(records),
        "clipping": clipping(records),
        "stability": stability(records),
        "shots": shots(records),
        "spread": spread(records),
        **paired_ratios(records),
        "results": tables(records),
        "figures": figures(records, folder),
        "validation-errors": validation_errors(records),
        "costs": costs(records),
        "higher-loop": higher_loop(),
        "times": times(),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rows))
