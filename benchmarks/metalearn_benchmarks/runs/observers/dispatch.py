"""Who is told of a run: installed observers, called so that none of them can harm it.

An observer is made for each run, in the process that trains it, by `factory(run)`; `run` is what the run's
`experiment.toml` says, and `folder`, where it is kept. It is called with every `Event` of the run: those of
`metalearn_core.Event`, then `testing`, and last `result` (`mean`, `median`, `ci95_low`, `ci95_high`, `tasks`,
`seconds`), `failed` (`message`) or `stopped`. If it has a method `close`, that is called after the last one.

Whatever is installed is told of every run: who installs a tracker wants it to track. A factory may have

- `on_request = True`: it is made only where `--observe NAME` asks for it;
- `writes_stdout = True`: standard output is its own, and people read from standard error;
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

Report = Callable[[Event], None]
BETWEEN = ("evaluating", "compiling")
"""Events for whoever shows a run or stops it, between two that say something of it."""


def require(names: Sequence[str]) -> None:
    """UsageError for an observer that is not installed, or cannot work here."""
    for name in names:
        getattr(observers()[name].factory, "require", lambda: None)()


def takes_stdout(names: Sequence[str]) -> bool:
    """Whether one of the observers asked for has standard output to itself."""
    return any(getattr(observers()[name].factory, "writes_stdout", False) for name in names)


def listening(names: Sequence[str] | None) -> list[Registered]:
    """The observers to be made: all that wait for no request, and those asked for; None: nobody."""
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

    One that fails, however and whenever, is told of in an event of kind `observer` and dropped.

    Args:
        run: what the observers are told of the run when they are made.
        names: of those asked for; None leaves all out.
        report: takes the events about observers that failed.
    """

    run: Mapping[str, Any]
    names: Sequence[str] | None
    report: Report
    position: int = 0
    ended: bool = False
    members: list[tuple[Registered, Any]] = attrs.field(factory=list)

    def __enter__(self) -> Self:
        for entry in listening(self.names):
            self._call(entry, self._join, entry)
        return self

    def _join(self, entry: Registered) -> None:
        observer = entry(copy.deepcopy(dict(self.run)))
        if not callable(observer):
            raise UsageError(f"its factory must return a function of an event, got {observer!r:.60}")
        self.members.append((entry, observer))

    def __call__(self, event: Event) -> None:
        if event.kind in BETWEEN:
            return
        self.position, self.ended = event.position, event.kind == "result"
        for entry, observer in tuple(self.members):
            # each has its own copy: what one writes into it, no other reads
            self._call(entry, observer, Event(event.kind, event.position, dict(event.values)))

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
        """Call what an observer brings; told of and dropped where that fails."""
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
    """Put back the global state that numbers may depend on: generators, dtype, threads, gradients."""
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
