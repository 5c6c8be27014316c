"""The colours, markers and fonts that all figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.records.row_names import without_steps

matplotlib.use("agg")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c46a9b", "#b8860b", "#2f93d1", "#6a51a3", "#555555")
"""The colours of methods on a light page. Each has a contrast of at least 3 : 1 with its page."""
DARK_COLOURS = ("#4ba3dd", "#f0803c", "#2fbf94", "#e08fbb", "#d3a23a", "#7cc8f2", "#a996dd", "#a8a8a8")
"""The colours that take the place of `COLOURS` on a dark page, in the same order."""
MARKERS = "osD^vPX"
METHOD_COLOURS = 7
"""The number of colours that methods have; the last one, grey, is for what is not told from chance."""
UNDECIDED = COLOURS[METHOD_COLOURS]
"""The grey of a difference that is not told from chance."""
TEXT_COLOUR = "#6b6b6b"
RC_PARAMS: Any = {
    "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": TEXT_COLOUR, "axes.labelcolor": TEXT_COLOUR, "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR, "text.color": TEXT_COLOUR, "legend.frameon": False,
    "savefig.transparent": True, "figure.dpi": 100, "text.parse_math": False, "text.usetex": False,
}  # fmt: skip
"""The matplotlib settings under which every figure is drawn and rendered."""
FIGURE_WIDTH = 4.8
"""The width of a figure in inches: narrow enough that a phone shows it with readable letters."""
MAX_PANELS = 12
"""The largest number of panels of a figure that has a panel for each method."""

SHIPPED = (
    "maml", "turtle", "lstm", "lstm-enhanced", "fo-maml", "fo-turtle", "finetuning", "train-from-scratch",
    "baseline++", "nearest-centroid", "logistic-regression", "alfa", "lstm-optimizer",
    "anil", "boil",
    "reptile", "imaml", "hf-maml", "es-maml",
)  # fmt: skip
"""The methods that look the same in every report, in the order of their colours and markers."""

MethodStyles = Mapping[str, dict[str, Any]]
"""The colour and the marker of each method, by name. All figures of a report share them."""


def styles_by_method(records: Sequence[Record]) -> MethodStyles:
    """Give each method a colour and a marker, the same at every T. Shipped ones keep theirs."""
    names = {record.method: without_steps(record.method) for record in records}
    others = sorted(set(names.values()) - set(SHIPPED))
    places = {name: place for place, name in enumerate((*SHIPPED, *others))}
    return {name: style_of(places[kept]) for name, kept in names.items()}


def style_of_shipped(method: str) -> dict[str, Any]:
    """Return the colour and the marker of a shipped method."""
    return style_of(SHIPPED.index(method))


def style_of(index: int) -> dict[str, Any]:
    """Return the colour and the marker with this number. There are 49; then they repeat."""
    turn, place = divmod(index, METHOD_COLOURS)
    return {"color": COLOURS[place], "marker": MARKERS[(place + turn) % len(MARKERS)]}
