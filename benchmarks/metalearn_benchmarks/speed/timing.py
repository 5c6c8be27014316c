"""The result of timing one peer in one setting, as data and as a row of a table. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from metalearn_benchmarks.speed.settings import GRADIENT, Setting


@attrs.frozen
class Sample:
    """Seconds of the first call, compiling included, and of each later one; there are at least 2."""

    first: float
    times: Sequence[float]


@attrs.frozen(kw_only=True)
class Timing:
    """The timing of one peer in one setting.

    Args:
        setting: The setting.
        what: `GRADIENT` or `OUTER`.
        n: Number of parameters of the base-learner.
        peer: Name of the peer.
        median: Milliseconds, or None where `note` says why there are none.
        quartiles: The lower and the upper one, in milliseconds.
        first: Seconds of the first call, compiling included.
        rounds: How often the peer was timed.
        share_of_peak: Useful operations a second, as a part of those of a large matrix product in the
            same run. It is above 1 where an engine finds a way to need fewer operations.
        ratio: The median as a multiple of this engine's, compiled where that was timed.
        cold: Seconds from the start of a fresh process until its first meta-gradient, with empty caches of
            compiled code.
        warm: The same with the caches that the cold start left.
        call_memory: Peak resident memory of a call in MB, beyond what is held between calls.
        process_memory: Peak resident memory of a fresh process in MB, compiling included.
        note: Why there are no numbers.
    """

    setting: Setting
    what: str
    n: int
    peer: str
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    first: float | None = None
    rounds: int = 0
    share_of_peak: float | None = None
    ratio: float | None = None
    cold: float | None = None
    warm: float | None = None
    call_memory: float | None = None
    process_memory: float | None = None
    note: str = ""

    @property
    def tasks_a_second(self) -> float | None:
        """Tasks a second by the median, over all seeds together."""
        return None if self.median is None else 1e3 * self.setting.tasks * self.setting.seeds / self.median

    def as_data(self) -> dict[str, Any]:
        """Return the fields in one flat dictionary, unrounded."""
        found = {**attrs.asdict(self), "tasks_a_second": self.tasks_a_second}
        return {**found.pop("setting"), **found}


def timings(
    setting: Setting, what: str, n: int, samples: Mapping[str, Sample | str], operations: float, rate: float
) -> list[Timing]:
    """Make the timings of all peers in a setting.

    Args:
        setting: The setting.
        what: `GRADIENT` or `OUTER`.
        n: Number of parameters of the base-learner.
        samples: The sample of each peer by its name, or a text that says why there is none.
        operations: Useful floating-point operations of a call.
        rate: Operations a second of a large matrix product.
    """
    medians = {name: statistics.median(s.times) for name, s in samples.items() if isinstance(s, Sample)}
    ours = next((medians[name] for name in ("compiled", "eager") if name in medians), None)
    found = []
    for name, sample in samples.items():
        timing = Timing(setting=setting, what=what, n=n, peer=name)
        if isinstance(sample, str):
            found.append(attrs.evolve(timing, note=sample))
            continue
        low, median, high = statistics.quantiles(sample.times, n=4, method="inclusive")
        timing = attrs.evolve(timing, median=1e3 * median, quartiles=(1e3 * low, 1e3 * high))
        share, ratio = operations / (median * rate), None if ours is None else median / ours
        rounds = len(sample.times)
        found.append(
            attrs.evolve(timing, first=sample.first, rounds=rounds, share_of_peak=share, ratio=ratio)
        )
    return found


def row(timing: Timing, extras: Sequence[str] = ()) -> dict[str, str]:
    """Return a row of the table, with the columns of `EXTRAS` that are named."""
    low, high = timing.quartiles or (None, None)
    shown = {
        "what": timing.what,
        "peer": timing.peer,
        "ms, median": f"{_shown(timing.median, '{:.3g}')} {timing.note}".strip(),
        "quartiles": f"{_shown(low, '{:.3g}')} to {_shown(high, '{:.3g}')}" if timing.quartiles else "",
        "times ours": _shown(timing.ratio, "{:.2f}"),
        "tasks/s": _shown(timing.tasks_a_second, "{:.3g}"),
        "first call, s": _shown(timing.first, "{:.1f}"),
        "of peak": _shown(timing.share_of_peak, "{:.1%}"),
    }
    for name in extras:
        label, form = EXTRAS[name]
        shown[label] = _shown(getattr(timing, name) if timing.what == GRADIENT else None, form)
    return shown


EXTRAS = {
    "call_memory": ("a call, MB", "{:.1f}"),
    "process_memory": ("process, MB", "{:.0f}"),
    "cold": ("cold start, s", "{:.1f}"),
    "warm": ("warm start, s", "{:.1f}"),
}
"""The columns of what is measured on request: the label and the format of each field."""


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
