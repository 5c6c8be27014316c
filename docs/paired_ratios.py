"""What one change does to the typical error, seed by seed, as "The paper against us" has it: Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.statistics.comparisons import typical_log_ratio
from metalearn_benchmarks.statistics.paired_scores import MethodScores, pair_scores

Row = tuple[str, str]
"""An experiment and one of its rows."""


def _of(experiment: str, *rows: str) -> list[Row]:
    return [(experiment, row) for row in rows]


LSTM, ENHANCED = ("figure-3.3", "lstm"), ("figure-3.3", "lstm-enhanced")
TURTLE, MAML = ("figure-3.3", "turtle"), ("figure-3.3", "maml")
FO_TURTLE = ("figure-3.3", "fo-turtle")
RAW, SECOND, RAW_SECOND = _of("lstm-ablation", "lstm-raw", "lstm-second-order", "lstm-raw-second-order")
ALPHA, AS_ON_IMAGES = _of("turtle-inputs", "turtle-learned-alpha", "turtle-as-on-images")
GRADIENTS, UPDATES = _of("turtle-inputs", "turtle-history-of-gradients", "turtle-history-of-updates")


def at(row: Row, steps: int) -> Row:
    """The row with another T than its own."""
    return row[0], f"{row[1]},steps={steps}"


MAML_20 = at(("long-unrolls", "maml"), 20)
UNCLIPPED = ("maml-clipping", "maml-support-unclipped")
PAIRS: Mapping[str, Sequence[tuple[str, Row, Row]]] = {
    "sine": [
        *(
            (f"{what}, T = {steps}", *((row if steps == 5 else at(row, steps)) for row in (one, other)))
            for what, one, other in (
                ("TURTLE, over MAML", TURTLE, MAML),
                ("TURTLE, over the LSTM", TURTLE, LSTM),
                ("the LSTM, over MAML", LSTM, MAML),
            )
            for steps in (1, 5, 10)
        ),
        ("first-order TURTLE, over first-order MAML, T = 5", FO_TURTLE, ("figure-3.3", "fo-maml")),
        ("first-order TURTLE, over the LSTM on raw gradients, T = 5", FO_TURTLE, RAW),
    ],
    "lstm": [
        ("second order, over first; logarithms and the loss, T = 5", SECOND, LSTM),
        ("second order, over first; raw gradients, T = 5", RAW_SECOND, RAW),
        ("second order, over first; raw gradients, T = 8", ENHANCED, at(RAW, 8)),
        ("raw gradients, over logarithms and the loss; first order, T = 5", RAW, LSTM),
        ("raw gradients, over logarithms and the loss; second order, T = 5", RAW_SECOND, SECOND),
        ("raw gradients, over logarithms and the loss; second order, T = 8", ENHANCED, at(SECOND, 8)),
        ("8 updates, over 5; raw gradients, second order", ENHANCED, RAW_SECOND),
        ("second order, raw gradients, over TURTLE; T = 5", RAW_SECOND, TURTLE),
        ("second order, logarithms and the loss, over TURTLE; T = 5", SECOND, TURTLE),
    ],
    "turtle": [
        ("a learned α, from 1", ALPHA, TURTLE),
        ("an average of gradients and a learned α, from U[0, 1)", AS_ON_IMAGES, TURTLE),
        ("an average of gradients", GRADIENTS, TURTLE),
        ("an average of updates", UPDATES, TURTLE),
        ("a learned α, over the LSTM of second order on raw gradients", ALPHA, RAW_SECOND),
        ("a learned α, over the LSTM of second order on logarithms and the loss", ALPHA, SECOND),
        ("MAML with a learned α, over MAML", ("turtle-inputs", "maml-learned-alpha"), MAML),
    ],
    "unrolls": [
        ("MAML, T = 20, over T = 10", MAML_20, at(MAML, 10)),
        ("MAML, T = 50, over T = 20", at(("long-unrolls", "maml"), 50), MAML_20),
        ("TURTLE, T = 50, over T = 20", *(at(("long-unrolls", "turtle"), steps) for steps in (50, 20))),
        (
            "TURTLE, last 5 updates differentiated, over plain TURTLE; T = 50",
            *(at(("long-unrolls", f"turtle{way}"), 50) for way in ("-truncated", "")),
        ),
        *(
            (f"{what}, over plain MAML; T = 20", at(("long-unrolls", f"maml-{row}"), 20), MAML_20)
            for what, row in (
                ("smoothed outer loss", "smoothed"),
                ("growing T", "growing"),
                ("last 5 updates differentiated", "truncated"),
                ("nothing clipped", "unclipped"),
            )
        ),
    ],
    "clipping": [
        ("support gradients as they are, T = 1", at(UNCLIPPED, 1), at(MAML, 1)),
        ("support gradients as they are, T = 5", UNCLIPPED, MAML),
        ("TURTLE, over MAML without that clamp, T = 1", at(TURTLE, 1), at(UNCLIPPED, 1)),
        ("TURTLE, over MAML without that clamp, T = 5", TURTLE, UNCLIPPED),
        ("the LSTM, over MAML without that clamp, T = 1", at(LSTM, 1), at(UNCLIPPED, 1)),
        ("the LSTM, over MAML without that clamp, T = 5", LSTM, UNCLIPPED),
    ],
}  # fmt: skip
"""By the table: what is changed, the row that has it, and the one that has not."""
SHOTS = {1: "sine-shots", 2: "sine-shots", 5: "figure-3.3", 10: "figure-3.3", 20: "sine-shots"}


def paired_ratios(records: Sequence[Record]) -> dict[str, str]:
    """The tables, by name."""
    lines = {
        name: [_line(what, records, one, other) for what, one, other in pairs]
        for name, pairs in PAIRS.items()
    }
    lines["shots"] = [
        _line(f"TURTLE, over MAML; examples: {n}", records, (e, "turtle"), (e, "maml"), f"sine-{n}-shot")
        for n, e in SHOTS.items()
    ]
    head = "| change | ratio of typical errors | 95 % interval | lower in seeds |\n" + "| --- " * 4 + "|\n"
    return {f"paired-{name}": head + "".join(rows) for name, rows in lines.items()}


def _line(what: str, records: Sequence[Record], one: Row, other: Row, setting: str = "sine-5-shot") -> str:
    scores, base = (
        MethodScores.from_runs([r for r in records if (r.experiment, r.method, r.setting) == (*row, setting)])
        for row in (one, other)
    )
    found = typical_log_ratio(scores, base)
    logarithm = found.interval()
    value, low, high = (math.exp(x) for x in (logarithm.value, logarithm.low, logarithm.high))
    ours, theirs = (np.median(side, axis=1) for side in pair_scores(scores, base))
    lower = f"{np.count_nonzero(ours < theirs)} of {found.seeds}"
    return f"| {what} | {value:.2f} | [{low:.2f}, {high:.2f}] | {lower} |\n"
