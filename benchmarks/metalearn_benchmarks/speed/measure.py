"""Timing: every peer in turn, round after round, so that a noisy moment meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from metalearn_benchmarks.speed.peers import PEERS, Step
from metalearn_benchmarks.speed.work import Work
from metalearn_core import Order

AGREE = 1e-3
"""How far a peer's meta-gradient may be from this engine's, as a part of its largest element, in float32."""


@attrs.frozen
class Timing:
    """One peer on one setting: milliseconds a meta-gradient, or why there are none.

    `first`: seconds of the first call, compiling included; `ratio`: its median as a multiple of this
    engine's, compiled where that was timed; `share_of_peak`: useful operations a second, as a part of
    those of a large matrix product in the same run.
    """

    rule: str
    tasks: int
    steps: int
    order: str
    threads: int
    peer: str
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    first: float | None = None
    rounds: int = 0
    share_of_peak: float | None = None
    ratio: float | None = None
    note: str = ""


def row(timing: Timing, plain: bool) -> dict[str, Any]:
    """A line of the table; `plain` with the numbers as they are, for programs."""
    if plain:
        return attrs.asdict(timing)
    setting = f"{timing.rule}, {timing.tasks} task(s), T = {timing.steps}, {timing.order} order"
    shown: dict[str, Any] = {
        "setting": setting,
        "threads": timing.threads,
        "peer": timing.peer,
        "ms, median": timing.note,
        "quartiles": "",
        "times ours": "",
        "first call, s": "",
        "of peak": "",
    }
    if timing.median is not None and timing.quartiles is not None:
        shown |= {
            "ms, median": f"{timing.median:.3g}",
            "quartiles": "{:.3g} to {:.3g}".format(*timing.quartiles),
            "times ours": "" if timing.ratio is None else f"{timing.ratio:.2f}",
            "first call, s": f"{timing.first:.1f}",
            "of peak": f"{timing.share_of_peak:.1%}",
        }
    return shown


def peak_rate(size: int = 1024, rounds: int = 5) -> float:
    """Operations a second of a large matrix product, as fast as one was."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def measure(
    rule: str, tasks: int, steps: int, order: Order, threads: int, seconds: float, peers: Sequence[str]
) -> Iterator[Timing]:
    """Time every peer for about `seconds` each. The first call, compiling included, is told apart."""
    torch.set_num_threads(threads)
    work = Work.of(rule, tasks, steps, order)
    told: dict[str, Any] = {
        "rule": rule, "tasks": tasks, "steps": steps, "order": order, "threads": threads,
    }  # fmt: skip
    reference = [_plain(x) for x in PEERS["eager"](work)()]
    ready: dict[str, Step] = {}
    firsts: dict[str, float] = {}
    for name in peers:
        try:
            start = time.perf_counter()
            step = PEERS[name](work)
            found = [_plain(x) for x in step()]
            firsts[name] = time.perf_counter() - start
        except ImportError as error:
            yield Timing(**told, peer=name, note=f"not installed ({error.name})")
            continue
        if (distance := _distance(found, reference)) > AGREE:
            yield Timing(**told, peer=name, note=f"its gradient is {distance:.1e} off: not timed")
            continue
        ready[name] = step
    times = _rounds(ready, seconds)
    rate = peak_rate()
    ours = next((times[name] for name in ("compiled", "eager") if name in times), None)
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4)
        share = work.operations / (median * rate)
        yield Timing(
            **told, peer=name, median=1e3 * median, quartiles=(1e3 * low, 1e3 * high),
            first=firsts[name], rounds=len(values), share_of_peak=share,
            ratio=None if ours is None else median / statistics.median(ours),
        )  # fmt: skip


def _rounds(ready: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Seconds of every call; each peer stops when its time is spent, at the earliest after five calls."""
    times: dict[str, list[float]] = {name: [] for name in ready}
    for step in ready.values():
        step()
    going = set(ready)
    while going:
        for name in sorted(going):
            start = time.perf_counter()
            ready[name]()
            times[name].append(time.perf_counter() - start)
            if len(times[name]) >= 5 and sum(times[name]) >= seconds:
                going.discard(name)
    return times


def _plain(x: Any) -> Any:
    return x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def _distance(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest difference, as a part of the largest element of its tensor."""
    parts = [
        float(np.abs(a - b).max() / (1e-6 + np.abs(b).max()))
        for a, b in zip(ours, theirs, strict=True)
        if b.size
    ]
    return max(parts)
