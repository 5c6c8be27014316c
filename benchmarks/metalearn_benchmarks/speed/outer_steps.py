"""Whole outer steps as a user runs them: sampling, the meta-gradient, and a step of Adam."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import accumulate, count, pairwise

import attrs
import torch

from metalearn_benchmarks.speed.peers.base import Peer
from metalearn_benchmarks.speed.peers.jax_program import jax_outer_step, jax_scanned_steps
from metalearn_benchmarks.speed.peers.shipped import PEERS
from metalearn_benchmarks.speed.work import OUTER_LR, Work, stream, weights
from metalearn_core import Event, Settings, meta_train_seeds

LEFT_OUT = 3
"""Outer steps at the start that are not timed: they compile, and their losses are compared."""
ENDLESS = 10**9
SCANNED, MOST_SCANNED = 200, 500
"""Outer steps in one scan of JAX, and tasks in it, at most."""


class Enough(KeyboardInterrupt):
    """Raised by an observer to stop `meta_train` when enough steps are timed."""


@attrs.define
class Clock:
    """A clock that receives the losses of outer steps as they end.

    Args:
        seconds: How long steps are timed, at least 3 calls of it; then the clock raises `Enough`.
        started: When the clock was made.
        ends: When the losses of each call of the clock came.
        losses: The loss of each step.
        sizes: Number of losses in each call of the clock.
    """

    seconds: float
    started: float = attrs.field(factory=time.perf_counter)
    ends: list[float] = attrs.field(factory=list)
    losses: list[float] = attrs.field(factory=list)
    sizes: list[int] = attrs.field(factory=list)

    def __call__(self, *losses: float) -> None:
        """Record one more step, or all steps of a program that takes many at once.

        Raises:
            Enough: Enough steps are timed.
        """
        self.ends.append(time.perf_counter())
        self.losses.extend(losses)
        self.sizes.append(len(losses))
        kept = self._kept()
        if len(kept) > 3 and self.ends[-1] - self.ends[kept[0]] >= self.seconds:
            raise Enough

    @property
    def first(self) -> float:
        """Seconds until the first step ended."""
        return self.ends[0] - self.started

    @property
    def times(self) -> list[float]:
        """Seconds of a step, in each call that counts.

        Steps of our own engine that one call takes end together, for the clock: so time is taken from the
        first of a call to the first of the next one. A call begins where more than half of the mean time
        has passed.
        """
        kept = self._kept()
        ends = [self.ends[i] for i in kept]
        gaps = [after - before for before, after in pairwise(ends)]
        begun = [0, *(i for i, gap in enumerate(gaps, 1) if gap > (ends[-1] - ends[0]) / len(gaps) / 2)]
        if len(gaps) <= 3 or len(begun) <= 3:
            begun = list(range(len(ends)))
        steps = [0, *accumulate(self.sizes[i] for i in kept[1:])]
        return [
            (ends[after] - ends[before]) / (steps[after] - steps[before]) for before, after in pairwise(begun)
        ]

    def _kept(self) -> range:
        """The calls of the clock from the last that is left out."""
        left_out = next((i for i, done in enumerate(accumulate(self.sizes)) if done >= LEFT_OUT), 0)
        return range(left_out, len(self.ends))


OnLoss = Callable[..., None]
Run = Callable[[Work, OnLoss], None]
"""A function that takes outer steps for ever, and hands on the losses of each call."""


def _meta_train(engine: str) -> Run:
    """Our engine, through its public loop, whatever that does."""

    def run(work: Work, on_loss: OnLoss) -> None:
        setting = work.setting
        settings = Settings(
            tasks=ENDLESS, meta_batch=setting.tasks, steps=setting.steps, order=setting.order,
            outer_lr=OUTER_LR, validation_interval=ENDLESS, validation_tasks=1,
            engine="compiled" if engine == "compiled" else "eager",
        )  # fmt: skip

        def observer(event: Event) -> None:
            if event.kind == "step":
                on_loss(float(event.values["loss"]))
            elif event.kind == "engine" and event.values["engine"] != engine:
                raise _Refused(str(event.values["note"]))

        seeds = range(setting.seeds)
        meta_train_seeds(
            [work.rule for _ in seeds], work.learner, work.family, settings,
            generators=[weights(seed) for seed in seeds],
            observers=[[] if seed else [observer] for seed in seeds],
        )  # fmt: skip

    return run


class _Refused(Enough):
    """Says why; a plain exception would be taken for an observer's own failure."""


def _torch_adam(make: Callable[[Work], Peer]) -> Run:
    def run(work: Work, on_loss: OnLoss) -> None:
        peer, tasks = make(work), stream(work.family, work.learner)
        adam = torch.optim.Adam(peer.parameters, lr=OUTER_LR)
        for position in count(0, work.setting.tasks):
            loss, *grads = peer.gradient(tasks.take(position, work.setting.tasks))
            for parameter, grad in zip(peer.parameters, grads, strict=True):
                parameter.grad = grad
            adam.step()
            on_loss(float(loss))

    return run


def _jax(work: Work, on_loss: OnLoss) -> None:
    step, tasks = jax_outer_step(work), stream(work.family, work.learner)
    for position in count(0, work.setting.tasks):
        on_loss(step(tasks.take(position, work.setting.tasks)))


def _jax_scan(work: Work, on_loss: OnLoss) -> None:
    size = work.setting.tasks
    steps = max(1, min(SCANNED, MOST_SCANNED // size))
    scan, tasks = jax_scanned_steps(work, steps), stream(work.family, work.learner)
    for position in count(0, size * steps):
        on_loss(*scan(tasks.take(position, size * steps)))


RUNS: dict[str, Run] = {
    **{name: _torch_adam(PEERS[name]) for name in ("higher loop", "clone loop", "torch.func", "TorchOpt")},
    "eager": _meta_train("eager"),
    "compiled": _meta_train("compiled"),
    "jax": _jax,
    "jax scan": _jax_scan,
}
"""The outer steps of each peer, by its name."""


SEEDS_TOGETHER = ("eager", "compiled", "jax scan")
"""Those that train several seeds at once."""


def clocked(name: str, work: Work, seconds: float) -> Clock:
    """Time outer steps of a peer.

    Args:
        name: Name of the peer.
        work: What the peer trains.
        seconds: About how long.

    Raises:
        ValueError: The peer cannot train several seeds together.
        RuntimeError: The peer stopped early, or another engine ran than the one asked for.
    """
    clock = Clock(seconds)
    if work.setting.seeds > 1 and name not in SEEDS_TOGETHER:
        raise ValueError("one seed at a time")
    try:
        RUNS[name](work, clock)
    except _Refused as refusal:
        raise RuntimeError(str(refusal)) from None
    except Enough:
        return clock
    raise RuntimeError(f"it stopped after {len(clock.losses)} outer steps")
