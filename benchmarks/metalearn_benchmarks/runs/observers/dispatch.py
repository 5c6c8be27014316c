"""Calling the installed observers of a run, so that none of them can harm it.

An observer is made for each run, in the process that trains it, by `factory(run)`. `run` holds the contents
of the run's `experiment.toml`; `folder`, the folder of its record; and what `description` adds: `run_id`,
`resumed`, `commit`, `versions` and `tags`. The observer is called with every
`Event` of the run: those of `metalearn_core.Event`, of which `start` has `resumed` (1 or 0) and `step` has
`outer_lr` as well; then `testing`, and last one of `result` (with `mean`, `median`, `ci95_low`, `ci95_high`,
`tasks`, `seconds`, and `score_after_0` ... `score_after_T`), `failed` (with `message`) and `stopped`. If it
has a method `close`, that is called after the last event. If it has an attribute `gradient_norm` that is
true, `step` has the norm of the meta-gradient as well, and outer steps are taken one by one.

Every installed observer receives every run: who installs a tracker wants it to track. A factory may have

- `on_request = True`: it is used only where `--observe NAME` asks for it;
- `writes_stdout = True`: standard output is its own, and messages for people go to standard error;
- `require()`: raises UsageError, before anything is run, where it could not work.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import attrs
import numpy as np
import torch

from metalearn_core import Event, Registered, UsageError, observers

EventCallback = Callable[[Event], None]
"""Called with an event."""
PROGRESS_EVENTS = ("evaluating", "compiling")
"""Events for a display of progress only, which observers do not receive."""


def require_observers(names: Sequence[str]) -> None:
    """Raise UsageError for an observer that is not installed, or cannot work here."""
    for name in names:
        getattr(observers()[name].factory, "require", lambda: None)()


def any_writes_stdout(names: Sequence[str]) -> bool:
    """Return whether one of the requested observers has standard output to itself."""
    return any(getattr(observers()[name].factory, "writes_stdout", False) for name in names)


def selected_observers(names: Sequence[str] | None) -> list[Registered]:
    """Return the observers to make.

    Args:
        names: Those that were requested, which are added to those that need no request. None: no observers.
    """
    if names is None:
        return []
    return [
        entry
        for name, entry in observers().items()
        if name in names or not getattr(entry.factory, "on_request", False)
    ]


@attrs.define(eq=False)
class ObserverGroup:
    """All observers of one run, as one observer that never fails.

    An observer that raises an error is dropped, and an event of kind `observer` reports it.

    Args:
        run: What the factories are called with.
        names: The observers that were requested. None: no observers.
        report: Called with the events about observers that failed.
        outer_lr_at: Returns the outer learning rate after so many training tasks.
        position: The position of the last event.
        ended: Whether the run has its result.
        members: Each observer with its entry.
    """

    run: Mapping[str, Any]
    names: Sequence[str] | None
    report: EventCallback
    outer_lr_at: Callable[[int], float] | None = None
    position: int = 0
    ended: bool = False
    members: list[tuple[Registered, Any]] = attrs.field(factory=list)

    @property
    def gradient_norm(self) -> bool:
        """Whether an observer asks for the norm of each meta-gradient."""
        return any(getattr(observer, "gradient_norm", False) for _, observer in self.members)

    def __enter__(self) -> Self:
        for entry in selected_observers(self.names):
            self._call(entry, self._join, entry)
        return self

    def _join(self, entry: Registered) -> None:
        observer = entry(copy.deepcopy(dict(self.run)))
        if not callable(observer):
            raise UsageError(f"its factory must return a function of an event, got {observer!r:.60}")
        self.members.append((entry, observer))

    def __call__(self, event: Event) -> None:
        if event.kind in PROGRESS_EVENTS:
            return
        event = Event(event.kind, event.position, {**event.values, **self._more(event)})
        self.position, self.ended = event.position, event.kind == "result"
        for entry, observer in tuple(self.members):
            # each has its own copy: what one writes into it, no other reads
            self._call(entry, observer, Event(event.kind, event.position, dict(event.values)))

    def _more(self, event: Event) -> dict[str, float]:
        """Return what the harness adds to an event of the training."""
        if event.kind == "start":
            return {"resumed": float(self.run.get("resumed", event.position > 0))}
        if event.kind == "step" and self.outer_lr_at is not None:
            return {
                "outer_lr": self.outer_lr_at(self.position)
            }  # the step began at the last event's position
        return {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.ended:
            message = " ".join(str(error).split()) or repr(error)
            failed = isinstance(error, Exception)
            self(
                Event(
                    "failed" if failed else "stopped", self.position, {"message": message} if failed else {}
                )
            )
        for entry, observer in tuple(self.members):
            self._call(entry, getattr(observer, "close", lambda: None))

    def _call(self, entry: Registered, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function of an observer. If that fails, report the observer and drop it."""
        try:
            with global_state_restored():
                function(*arguments)
        except (Exception, SystemExit) as error:  # a stranger's logger must not take the run down
            self.members = [(held, observer) for held, observer in self.members if held is not entry]
            # a factory's own error comes as a UsageError that names it once more
            why = error.__cause__ if isinstance(error, UsageError) and error.__cause__ else error
            message = (
                f"observer {entry.name!r} of {entry.distribution} failed and is dropped:"
                f" {type(why).__name__}: {' '.join(str(why).split())}"
            )
            self.report(Event("observer", self.position, {"name": entry.name, "message": message}))


@contextmanager
def global_state_restored() -> Iterator[None]:
    """Restore the global state that numbers depend on: generators, dtype, threads, gradient mode."""
    devices = range(torch.cuda.device_count() if torch.cuda._initialized else 0)
    python, numpys = random.getstate(), np.random.get_state()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices), torch.set_grad_enabled(torch.is_grad_enabled()):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpys)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
