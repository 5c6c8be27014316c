"""What `metalearn speed` was asked for, and its timings, one setting after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from metalearn_benchmarks.speed import fresh, settings
from metalearn_benchmarks.speed.measure import Say, measure
from metalearn_benchmarks.speed.peers.shipped import PEERS
from metalearn_benchmarks.speed.settings import Grid, Setting
from metalearn_benchmarks.speed.timing import EXTRAS, Timing
from metalearn_core.errors import UsageError, unknown

ENDINGS = ("png", "pdf", "svg")


@attrs.frozen(kw_only=True)
class Asked:
    """Who is timed in which settings, and what else is measured."""

    settings: Sequence[Setting]
    peers: Sequence[str]
    whats: Sequence[str]
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
        """The further columns of the table."""
        chosen = {
            "call_memory": self.memory, "process_memory": self.memory,
            "cold": self.compile_times, "warm": self.compile_times,
        }  # fmt: skip
        return [name for name in EXTRAS if chosen[name]]

    def timings(self, setting: Setting, say: Say) -> Iterator[Timing]:
        """Of one setting. `say` is told what is under way."""

        def tell(text: str) -> None:
            say(f"{setting}: {text}")

        for timing in measure(setting, self.peers, self.seconds, self._whats(setting), tell):
            found = timing
            if timing.what == settings.GRADIENT and timing.median is not None:
                tell(f"{timing.peer}: fresh processes")
                found = fresh.with_memory(found) if self.memory else found
                found = fresh.with_starts(found) if self.compile_times else found
            yield found

    def _whats(self, setting: Setting) -> Sequence[str]:
        """What is timed of a setting: of one of the figure's, what its panels show."""
        if self.figure:
            return list(dict.fromkeys(p.what for p in settings.PANELS if p.has(setting)))
        return (settings.OUTER,) if setting.seeds > 1 else self.whats


def asked(
    given: Grid, figure: Path | None, learner: str = "mlp",
    *, peers: Sequence[str], whats: Sequence[str], whole: bool,
    seconds: float, memory: bool, compile_times: bool,
) -> Asked:  # fmt: skip
    """From the options. `given`: axes of the grid. Raises UsageError for what does not fit together."""
    if figure is None:
        chosen = settings.grid(given, whole, learner)
        # an outer step is one more program, and those of images take a minute each to compile
        few = settings.MEASURED if learner == "mlp" else (settings.GRADIENT,)
        peers, whats = peers or settings.PEERS[learner], whats or few
    else:
        if figure.suffix.removeprefix(".") not in ENDINGS:
            raise UsageError(f"--figure {figure}: its name must end in one of {', '.join(ENDINGS)}")
        if whole or whats:
            raise UsageError("--figure times in settings of its own; leave --whole and --what out")
        if learner != "mlp" or any(given.get(name) for name in ("width", "size", "shots")):
            raise UsageError("--figure is of mlp, and n varies in it; leave --learner and what is of it out")
        chosen = settings.lines(given)
        peers = peers or ("compiled",)
    return Asked(
        settings=chosen,
        peers=peers,
        whats=whats,
        seconds=seconds,
        memory=memory,
        compile_times=compile_times,
        figure=figure is not None,
    )
