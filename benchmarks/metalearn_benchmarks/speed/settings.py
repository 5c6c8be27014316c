"""The settings that are timed, and the panels of the figure. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Literal, TypeAlias

import attrs

from metalearn_benchmarks.host.machine import cores
from metalearn_core.errors import UsageError

RULES = ("maml", "turtle", "lstm")
PEERS = {
    "mlp": ("higher loop", "torch.func", "TorchOpt", "eager", "compiled", "jax", "jax scan"),
    "conv-4": ("higher loop", "clone loop", "torch.func", "eager", "compiled"),
}
"""The peers that are timed with each base-learner by default."""
CORES = cores()
GRADIENT, OUTER = "meta-gradient", "outer step"
MEASURED = (GRADIENT, OUTER)
"""One meta-gradient on tasks in memory, and the whole outer step: sampling, meta-gradient, Adam."""

Grid: TypeAlias = Mapping[str, Sequence[Any]]
DEFAULT: Grid = {
    "rule": RULES, "tasks": (1, 25), "steps": (5,), "order": ("second",), "threads": (1,), "seeds": (1,),
    "width": (40,),
}  # fmt: skip
WHOLE: Grid = {
    "rule": RULES, "tasks": (1, 4, 25, 100), "steps": (1, 5, 10), "order": ("first", "second"),
    "threads": tuple(sorted({1, CORES})), "seeds": (1,), "width": (40,),
}  # fmt: skip
IMAGES: Grid = {
    **DEFAULT, "rule": ("maml",), "tasks": (1, 4), "width": (32,), "size": (28,), "shots": (1,),
}  # fmt: skip
WHOLE_IMAGES: Grid = {
    **WHOLE, "rule": ("maml",), "tasks": (1, 2, 4), "steps": (5,), "width": (32, 64), "size": (28, 84),
    "shots": (1, 5),
}  # fmt: skip
GRIDS = {"mlp": (DEFAULT, WHOLE), "conv-4": (IMAGES, WHOLE_IMAGES)}


@attrs.frozen(kw_only=True)
class Setting:
    """A piece of work to time.

    Args:
        rule: `maml`, `turtle` or `lstm`.
        tasks: Tasks of a meta-batch.
        steps: T, the number of inner steps.
        order: The order of the meta-gradient.
        threads: CPU cores.
        width: Width of the two hidden layers; of `conv-4`, channels of its blocks.
        seeds: Seeds that one outer step trains together.
        learner: `mlp` on sine regression, or `conv-4` on 5 classes of images.
        size: Pixels of a side of an image; of `conv-4` only.
        shots: Support images of each class; of `conv-4` only.

    Raises:
        UsageError: There are fewer cores than `threads`.
    """

    rule: str = "maml"
    tasks: int = 25
    steps: int = 5
    order: Literal["first", "second"] = "second"
    threads: int = 1
    width: int = 40
    seeds: int = 1
    learner: str = "mlp"
    size: int = 28
    shots: int = 1

    def __attrs_post_init__(self) -> None:
        if self.threads > CORES:
            raise UsageError(f"threads must be at most the {CORES} core(s) there are, got {self.threads}")

    def __str__(self) -> str:
        images = f"conv-4, 5-way {self.shots}-shot, {self.size} x {self.size}, width {self.width}"
        return (
            f"{self.rule}, {self.tasks} task{'s' * (self.tasks > 1)}, T = {self.steps}, {self.order} order,"
            f" {f'hidden {self.width}' if self.learner == 'mlp' else images},"
            f" {self.threads} thread{'s' * (self.threads > 1)}"
            f"{f', {self.seeds} seeds' * (self.seeds > 1)}"
        )


def grid(given: Grid, whole: bool, learner: str = "mlp") -> list[Setting]:
    """Return every combination of the axes.

    Args:
        given: Values of axes; the others come from the grid of the learner.
        whole: Take the whole grid, not the default one.
        learner: Name of the base-learner.

    Raises:
        UsageError: The learner has no such axis.
    """
    values = GRIDS[learner][whole]
    for name in given:
        if given[name] and name not in values:
            raise UsageError(f"--{name} is for --learner conv-4; {learner} has no such axis")
    axes = {name: given.get(name) or default for name, default in values.items()}
    return [
        Setting(learner=learner, **dict(zip(axes, chosen, strict=True))) for chosen in product(*axes.values())
    ]


@attrs.frozen
class Panel:
    """A panel of the figure: the cost while one field of the setting varies and the others do not.

    Args:
        label: Label of the horizontal axis.
        varied: The field that varies.
        values: Its values.
        x: The field of the timing's data that is drawn along the axis.
        tasks: Tasks of a meta-batch, where they do not vary.
        what: `GRADIENT` or `OUTER`.
    """

    label: str
    varied: str
    values: tuple[int, ...]
    x: str
    tasks: int = 25
    what: str = GRADIENT

    def base(self, of: Setting) -> Setting:
        """Return the setting that the panel's points vary."""
        return Setting(rule=of.rule, order=of.order, threads=of.threads, tasks=self.tasks)

    def around(self, base: Setting) -> Iterator[Setting]:
        """Yield the settings of one line."""
        return (self.at(self.base(base), value) for value in self.values)

    def has(self, setting: Setting) -> bool:
        """Whether a setting is a point of this panel, with any value of the varied field."""
        return setting == self.at(self.base(setting), getattr(setting, self.varied))

    def at(self, base: Setting, value: int) -> Setting:
        """Return the setting of one point."""
        changed: dict[str, Any] = {self.varied: value}
        return attrs.evolve(base, **changed)


PANELS = (
    Panel("tasks of a meta-batch", "tasks", (1, 4, 25, 100), "tasks"),
    Panel("inner steps T", "steps", (1, 5, 10), "steps"),
    Panel("parameters n of the base-learner", "width", (10, 20, 40, 80), "n"),
    Panel("seeds in one program, one task", "seeds", (1, 3, 10, 30), "seeds", tasks=1, what=OUTER),
)


def lines(given: Grid, panels: Sequence[Panel] = PANELS) -> list[Setting]:
    """Return the settings that the figure needs, each once: one line for each rule in each panel.

    Args:
        given: Values of axes; values of a varied field replace those of its panel.
        panels: The panels.

    Raises:
        UsageError: Two orders or two numbers of threads are given, or T = 0.
    """
    if len(given.get("order") or ()) > 1 or len(given.get("threads") or ()) > 1:
        raise UsageError("a figure shows one order and one number of threads; give one of each")
    if 0 in (given.get("steps") or ()):
        raise UsageError("a figure's axes are logarithmic; T must be at least 1 there")
    fixed = {name: given[name][0] for name in ("order", "threads") if given.get(name)}
    bases = [Setting(rule=rule, **fixed) for rule in given.get("rule") or RULES]
    chosen = [attrs.evolve(p, values=tuple(given.get(p.varied) or p.values)) for p in panels]
    return list(dict.fromkeys(s for base in bases for panel in chosen for s in panel.around(base)))
