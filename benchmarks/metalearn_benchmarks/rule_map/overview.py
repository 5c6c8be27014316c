"""The first picture of the map: the paper's three rules, and what contains what."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from metalearn_benchmarks.plotting.style import FIGURE_WIDTH, RC_PARAMS, TEXT_COLOUR, style_of_shipped
from metalearn_benchmarks.rule_map.canvas import CONTAINS, CROSSED
from metalearn_core.testing.theory.rule_map import RuleMap

BOXES = {
    "gradient-descent": (0.5, 0.16, "maml", "Gradient descent", "MAML"),
    "lstm": (0.22, 0.82, "lstm", "LSTM", "meta-learner LSTM"),
    "feed-forward": (0.78, 0.82, "turtle", "Feed-forward network", "TURTLE"),
}
"""Each rule by its node: where its box is, the method whose colour it has, and the two lines in it."""
SMALL_STEPS = "gradient-descent-below-1"
"""Gradient descent whose learning rate lies between 0 and 1."""
WIDTH, HEIGHT = 0.42, 0.22


def draw_overview(rule_map: RuleMap) -> Figure:
    """Draw gradient descent below the two rules that learn more, with what the map says of each pair."""
    with matplotlib.rc_context(RC_PARAMS):
        figure = Figure(figsize=(FIGURE_WIDTH, 3.4))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        for x, y, method, title, second in BOXES.values():
            _box(axes, x, y, style_of_shipped(method)["color"], title, second)
        for general, side in (("lstm", -1), ("feed-forward", 1)):
            _arrow(axes, rule_map, general, side)
        both = ("lstm", "feed-forward"), ("feed-forward", "lstm")
        if all(rule_map.relation(*pair).verdict == "not" for pair in both):
            axes.plot([0.43, 0.57], [0.82, 0.82], color=CROSSED, linewidth=1.2)
            axes.plot([0.5], [0.82], "x", color=CROSSED, markersize=9, markeredgewidth=2)
            axes.text(0.5, 0.955, "neither contains the other", ha="center", va="bottom", fontsize=9)
        return figure


def _box(axes: Axes, x: float, y: float, colour: str, title: str, second: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - WIDTH / 2 + 0.02, y - HEIGHT / 2 + 0.02),
            WIDTH - 0.04,
            HEIGHT - 0.04,
            boxstyle="round,pad=0.02,rounding_size=0.03",
            facecolor=(colour, 0.14),
            edgecolor=colour,
            mutation_aspect=1.4,
        )
    )
    axes.text(x, y + 0.035, title, ha="center", va="center", fontsize=11)
    axes.text(x, y - 0.045, second, ha="center", va="center", fontsize=9)


def _arrow(axes: Axes, rule_map: RuleMap, general: str, side: int) -> None:
    """An arrow to the rule that contains gradient descent, and in words for which learning rates."""
    whole = rule_map.relation("gradient-descent", general).verdict
    part = whole if whole != "not" else rule_map.relation(SMALL_STEPS, general).verdict
    if part == "not":
        return
    start, end = (0.5 + 0.1 * side, 0.28), (BOXES[general][0] + 0.02 * side, 0.7)
    line = "-" if part == "exact" else (0, (5, 3))
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=16, color=CONTAINS, linewidth=1.6, linestyle=line
        )
    )
    says = "contains it exactly" if part == "exact" else "contains it in the limit"
    if whole == "not":
        says += "\nfor rates from 0 to 1"
    x = (start[0] + end[0]) / 2 + 0.05 * side
    axes.text(x, 0.47, says, ha="left" if side > 0 else "right", va="center", fontsize=9, color=TEXT_COLOUR)
