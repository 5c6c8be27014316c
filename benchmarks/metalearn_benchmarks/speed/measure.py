"""The clock: it times peers in one setting, each after its meta-gradient was compared with this engine's."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from metalearn_benchmarks.speed import outer_steps
from metalearn_benchmarks.speed.cores import peak_rate, pinned
from metalearn_benchmarks.speed.peers.base import Peer
from metalearn_benchmarks.speed.peers.shipped import PEERS
from metalearn_benchmarks.speed.settings import GRADIENT, MEASURED, OUTER, Setting
from metalearn_benchmarks.speed.timing import Sample, Timing, timings
from metalearn_benchmarks.speed.work import Gradients, Work
from metalearn_core import Task

AGREE = {"mlp": 1e-3, "conv-4": 2e-2}
"""How far a peer may be from this engine, as a part of the largest element, in float32.

Of two pixels that are the same but for rounding, pooling takes one or the other; so it is with a ReLU at 0.
That befalls some meta-batches, so that on images one of TRIED is enough: who computes something else is off
on all.
"""
TRIED = {"mlp": 1, "conv-4": 8}
TURNS = 3

Say = Callable[[str], None]


def measure(
    setting: Setting, peers: Sequence[str], seconds: float,
    quantities: Sequence[str] = MEASURED, say: Say = lambda text: None,
) -> list[Timing]:  # fmt: skip
    """Time every peer in a setting, on the setting's cores.

    Args:
        setting: The setting.
        peers: Names of the peers.
        seconds: About how long each peer is timed.
        quantities: `GRADIENT`, `OUTER` or both.
        say: Receives lines on the progress.

    Returns:
        One timing for each quantity and peer; a peer that fails has a note in place of numbers.
    """
    found = []
    with pinned(setting.threads):
        work, rate = Work.of(setting), peak_rate()
        for what in quantities:
            samples = {GRADIENT: _meta_gradients, OUTER: _outer_steps}[what](work, peers, seconds, say)
            ordered = {name: samples[name] for name in peers}
            rate = max(rate, peak_rate())
            found += timings(setting, what, work.learner.layout.size, ordered, work.operations, rate)
    return found


def _meta_gradients(work: Work, peers: Sequence[str], seconds: float, say: Say) -> Mapping[str, Sample | str]:
    tasks = work.meta_batches(TRIED[work.setting.learner])
    found: dict[str, Sample | str] = {}
    ready, firsts = dict[str, Callable[[], Any]](), dict[str, float]()
    for name in peers:
        say(f"{name}: first meta-gradient")
        try:
            start = time.perf_counter()
            peer = PEERS[name](work)
            first = peer.gradient(task := peer.convert(work.task))
            firsts[name] = time.perf_counter() - start
            distance = _off(work, peer, first, tasks)
        except Exception as error:  # what a peer cannot do, the others still can
            found[name] = _why(error)
            continue
        if distance <= AGREE[work.setting.learner]:
            ready[name] = functools.partial(peer.gradient, task)
        else:
            found[name] = f"its gradient is {distance:.1e} off: not timed"
    say("meta-gradients, in turn")
    return found | {name: Sample(firsts[name], times) for name, times in _turns(ready, seconds).items()}


def _off(work: Work, peer: Peer, first: Gradients, tasks: Sequence[Task]) -> float:
    """The smallest distance from this engine on the meta-batches, up to one that is small enough."""
    ours, found = PEERS["eager"](work), float("inf")
    for task in tasks:
        theirs = first if task is work.task else peer.gradient(peer.convert(task))
        found = min(found, _distance(_aligned(work, theirs), _aligned(work, ours.gradient(task))))
        if found <= AGREE[work.setting.learner]:
            break
    return found


def call(name: str, work: Work) -> Callable[[], Gradients]:
    """Return a function without arguments that computes the peer's meta-gradient of the work."""
    peer = PEERS[name](work)
    task = peer.convert(work.task)
    return lambda: peer.gradient(task)


def _turns(ready: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Seconds of every call. Each peer has `seconds` in three turns, so that a noisy moment meets all.

    The first call of a turn is not timed: it finds the memory and the caches as another peer left them.
    """
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(TURNS):
        for name, step in ready.items():
            step()
            turn_start = time.perf_counter()
            while True:
                start = time.perf_counter()
                step()
                times[name].append((end := time.perf_counter()) - start)
                if end - turn_start >= seconds / TURNS:
                    break
    return times


def _outer_steps(work: Work, peers: Sequence[str], seconds: float, say: Say) -> Mapping[str, Sample | str]:
    """One peer after another: this engine's outer loop is in charge of its own steps."""
    reference = outer_steps.clocked("eager", work, 0.0).losses[: outer_steps.LEFT_OUT]
    found: dict[str, Sample | str] = {}
    for name in peers:
        say(f"{name}: outer steps")
        try:
            clock = outer_steps.clocked(name, work, seconds)
        except Exception as error:  # as above
            found[name] = _why(error)
            continue
        distance = _distance([np.array(clock.losses[: outer_steps.LEFT_OUT])], [np.array(reference)])
        off = f"its losses are {distance:.1e} off: not timed"
        found[name] = Sample(clock.first, clock.times) if distance <= AGREE[work.setting.learner] else off
    return found


def _why(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"not installed ({error.name})"
    line = next(iter(str(error).strip().splitlines()), "")
    return f"failed ({type(error).__name__}: {line[:80]})"


def _aligned(work: Work, gradients: Gradients) -> list[Any]:
    """The loss, the gradient for θ⁰ and those for φ, whatever parts they came in."""
    whole = np.concatenate([np.ravel(_plain(x)) for x in gradients])
    sizes = [1, *(x.numel() for x in (work.theta, *work.phi))]
    if whole.size != sum(sizes):
        raise ValueError(f"{whole.size} numbers, expected {sum(sizes)}")
    return np.split(whole, np.cumsum(sizes)[:-1])


def _plain(x: Any) -> Any:
    return x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def _distance(theirs: Sequence[Any], ours: Sequence[Any]) -> float:
    """The largest difference, as a part of the largest element of its array; NaN counts as infinite."""
    parts = [
        float(np.abs(a - b).max() / (1e-6 + np.abs(b).max()))
        for a, b in zip(theirs, ours, strict=True)
        if b.size
    ]
    return max(float("inf") if np.isnan(part) else part for part in parts)
