"""Which settings are timed. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Literal, TypeAlias

import attrs

from metalearn_core.errors import UsageError

RULES = ("maml", "turtle", "lstm")
CORES = len(os.sched_getaffinity(0))
GRADIENT, OUTER = "meta-gradient", "outer step"
MEASURED = (GRADIENT, OUTER)
"""One meta-gradient on tasks that are there; or the whole outer step: sampling, meta-gradient, Adam."""

Grid: TypeAlias = Mapping[str, Sequence[Any]]
DEFAULT: Grid = {
    "rule": RULES, "tasks": (1, 25), "steps": (5,), "order": ("second",), "threads": (1,), "seeds": (1,),
}  # fmt: skip
WHOLE: Grid = {
    "rule": RULES, "tasks": (1, 4, 25, 100), "steps": (1, 5, 10), "order": ("first", "second"),
    "threads": tuple(sorted({1, CORES})), "seeds": (1,),
}  # fmt: skip


@attrs.frozen(kw_only=True)
class Setting:
    """One piece of work.

    Args:
        steps: T.
        threads: CPU cores.
        width: of the learner's two hidden layers.
        seeds: how many are trained together; of an outer step.
    """

    rule: str = "maml"
    tasks: int = 25
    steps: int = 5
    order: Literal["first", "second"] = "second"
    threads: int = 1
    width: int = 40
    seeds: int = 1

    def __attrs_post_init__(self) -> None:
        if self.threads > CORES:
            raise UsageError(f"threads must be at most the {CORES} core(s) there are, got {self.threads}")

    def __str__(self) -> str:
        return (
            f"{self.rule}, {self.tasks} task{'s' * (self.tasks > 1)}, T = {self.steps}, {self.order} order,"
            f" hidden {self.width}, {self.threads} thread{'s' * (self.threads > 1)}"
            f"{f', {self.seeds} seeds' * (self.seeds > 1)}"
        )


def grid(given: Grid, whole: bool) -> list[Setting]:
    """Every combination; what is not given comes from the default grid, or from the whole one."""
    axes = {name: given.get(name) or values for name, values in (WHOLE if whole else DEFAULT).items()}
    return [Setting(**dict(zip(axes, values, strict=True))) for values in product(*axes.values())]


@attrs.frozen
class Panel:
    """A part of the figure: cost while one field of the setting varies, and the others stay as they are.

    Args:
        x: what is drawn along the axis, a field of the timing's data.
        tasks: of a meta-batch, where they do not vary.
        what: is timed.
    """

    label: str
    varied: str
    values: tuple[int, ...]
    x: str
    tasks: int = 25
    what: str = GRADIENT

    def base(self, of: Setting) -> Setting:
        """The setting that the panel's points are changed from."""
        return Setting(rule=of.rule, order=of.order, threads=of.threads, tasks=self.tasks)

    def around(self, base: Setting) -> Iterator[Setting]:
        """The settings of one line."""
        return (self.at(self.base(base), value) for value in self.values)

    def has(self, setting: Setting) -> bool:
        """Whether a setting is a point of this panel, whatever the values."""
        return setting == self.at(self.base(setting), getattr(setting, self.varied))

    def at(self, base: Setting, value: int) -> Setting:
        """One point."""
        changed: dict[str, Any] = {self.varied: value}
        return attrs.evolve(base, **changed)


PANELS = (
    Panel("tasks of a meta-batch", "tasks", (1, 4, 25, 100), "tasks"),
    Panel("inner steps T", "steps", (1, 5, 10), "steps"),
    Panel("parameters n of the base-learner", "width", (10, 20, 40, 80), "n"),
    Panel("seeds in one program, one task", "seeds", (1, 3, 10, 30), "seeds", tasks=1, what=OUTER),
)


def lines(given: Grid, panels: Sequence[Panel] = PANELS) -> list[Setting]:
    """What the figure needs, each setting once: one line for each rule in each panel.

    Tasks and T that are given are the panels' points. Raises UsageError for two orders or threads, and T = 0.
    """
    if len(given.get("order") or ()) > 1 or len(given.get("threads") or ()) > 1:
        raise UsageError("a figure shows one order and one number of threads; give one of each")
    if 0 in (given.get("steps") or ()):
        raise UsageError("a figure's axes are logarithmic; T must be at least 1 there")
    fixed = {name: given[name][0] for name in ("order", "threads") if given.get(name)}
    bases = [Setting(rule=rule, **fixed) for rule in given.get("rule") or RULES]
    chosen = [attrs.evolve(p, values=tuple(given.get(p.varied) or p.values)) for p in panels]
    return list(dict.fromkeys(s for base in bases for panel in chosen for s in panel.around(base)))
