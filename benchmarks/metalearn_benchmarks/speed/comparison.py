"""The comparison that `metalearn speed` is asked for: settings, peers, and what is measured of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from metalearn_benchmarks.speed import fresh_process, settings
from metalearn_benchmarks.speed.measure import Say, measure
from metalearn_benchmarks.speed.peers.shipped import PEERS
from metalearn_benchmarks.speed.settings import Grid, Setting
from metalearn_benchmarks.speed.timing import EXTRAS, Timing
from metalearn_core.errors import UsageError, unknown

ENDINGS = ("png", "pdf", "svg")


@attrs.frozen(kw_only=True)
class Comparison:
    """Which peers are timed in which settings, and what is measured of them.

    Args:
        settings: The settings, in the order in which they are timed.
        peers: Names of the peers.
        quantities: `GRADIENT`, `OUTER` or both; a figure measures what its panels show instead.
        seconds: How long each peer is timed in each setting.
        memory: Also measure memory.
        compile_times: Also measure the start of fresh processes.
        figure: Whether a figure is to be drawn.

    Raises:
        UsageError: A peer is unknown, or it has no such learner.
    """

    settings: Sequence[Setting]
    peers: Sequence[str]
    quantities: Sequence[str]
    seconds: float
    memory: bool
    compile_times: bool
    figure: bool = False

    def __attrs_post_init__(self) -> None:
        for peer in self.peers:
            if peer not in PEERS:
                raise unknown("peer", peer, PEERS)
            for learner in sorted({setting.learner for setting in self.settings} - {"mlp"}):
                if peer not in settings.PEERS[learner]:
                    there = ", ".join(settings.PEERS[learner])
                    raise UsageError(f"peer {peer!r} has no {learner}; those that have it: {there}")

    @property
    def extras(self) -> list[str]:
        """Names of the further columns of the table, as in `EXTRAS`."""
        chosen = {
            "call_memory": self.memory, "process_memory": self.memory,
            "cold": self.compile_times, "warm": self.compile_times,
        }  # fmt: skip
        return [name for name in EXTRAS if chosen[name]]

    def timings(self, setting: Setting, say: Say) -> Iterator[Timing]:
        """Yield the timing of each peer and quantity in a setting; `say` receives lines on the progress."""

        def tell(text: str) -> None:
            say(f"{setting}: {text}")

        for timing in measure(setting, self.peers, self.seconds, self._quantities(setting), tell):
            result = timing
            if timing.what == settings.GRADIENT and timing.median is not None:
                tell(f"{timing.peer}: fresh processes")
                result = fresh_process.with_memory(result) if self.memory else result
                result = fresh_process.with_starts(result) if self.compile_times else result
            yield result

    def _quantities(self, setting: Setting) -> Sequence[str]:
        """What is timed in a setting; in a setting of the figure, what its panels show."""
        if self.figure:
            return list(dict.fromkeys(p.what for p in settings.PANELS if p.has(setting)))
        return (settings.OUTER,) if setting.seeds > 1 else self.quantities


def plan_comparison(
    given: Grid, figure: Path | None, learner: str = "mlp",
    *, peers: Sequence[str], quantities: Sequence[str], whole: bool,
    seconds: float, memory: bool, compile_times: bool,
) -> Comparison:  # fmt: skip
    """Make a comparison from the options of the command; what is not given has defaults.

    Args:
        given: Values for the axes of the grid.
        figure: The file of the figure, or None for a table.
        learner: Name of the base-learner.
        peers: Names of the peers.
        quantities: What is timed.
        whole: Take the whole grid.
        seconds: How long each peer is timed in each setting.
        memory: Also measure memory.
        compile_times: Also measure the start of fresh processes.

    Raises:
        UsageError: Options do not fit together.
    """
    if figure is None:
        chosen = settings.grid(given, whole, learner)
        # an outer step is one more program, and those of images take a minute each to compile
        few = settings.MEASURED if learner == "mlp" else (settings.GRADIENT,)
        peers, quantities = peers or settings.PEERS[learner], quantities or few
    else:
        if figure.suffix.removeprefix(".") not in ENDINGS:
            raise UsageError(f"--out {figure}: its name must end in one of {', '.join(ENDINGS)}")
        if whole or quantities:
            raise UsageError("--out times in settings of its own; leave --whole and --what out")
        if learner != "mlp" or any(given.get(name) for name in ("width", "size", "shots")):
            raise UsageError("--out is of mlp, and n varies in it; leave --learner and what is of it out")
        chosen = settings.lines(given)
        peers = peers or ("compiled",)
    return Comparison(
        settings=chosen,
        peers=peers,
        quantities=quantities,
        seconds=seconds,
        memory=memory,
        compile_times=compile_times,
        figure=figure is not None,
    )
