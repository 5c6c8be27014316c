"""One job of a run: cells of one method, alone in their folders, told of as one."""

from __future__ import annotations

import fcntl
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.synchronize import Event as Flag
from pathlib import Path
from statistics import fmean
from typing import Any

import attrs

from metalearn_benchmarks import groups, records
from metalearn_benchmarks.catalogue import Cell
from metalearn_benchmarks.cell import run_cells
from metalearn_core import Event, UsageError

Tell = Callable[[str, Event], None]
Job = tuple[Cell, ...]
"""Cells of one method that are run together, by seed."""


@attrs.frozen
class Finished:
    """What one cell came to: its result, or why there is none. Neither: it was told to stop."""

    label: str
    result: dict[str, Any] | None = None
    error: str | None = None
    mendable: bool = False


@attrs.define
class Voice:
    """Tells of the seeds that train together as of one run, the one that is furthest; stops when told to.

    Raises KeyboardInterrupt between two outer steps, or two tests, once `stop` is set.
    """

    label: str
    tell: Tell
    stop: Flag
    position: int = 0
    told: dict[str, int] = attrs.field(factory=dict)
    validated: list[Event] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        if event.kind == "observer":  # of any seed, wherever it stands
            self.tell(self.label, event)
            return
        once = event.kind not in ("validation", "waiting", "testing")
        if once and self.told.get(event.kind) == event.position:
            return  # another seed has said so
        self.told[event.kind] = event.position
        if event.position >= self.position:  # a seed that diverged has nothing more to say
            self.position = event.position
            self.tell(self.label, self._averaged(event) if event.kind == "validation" else event)
        if self.stop.is_set():
            raise KeyboardInterrupt

    def _averaged(self, event: Event) -> Event:
        """A validation, with the mean over the seeds that have been validated here."""
        self.validated = [past for past in self.validated if past.position == event.position] + [event]
        mean = {key: fmean(float(past.values[key]) for past in self.validated) for key in event.values}
        return Event(event.kind, event.position, mean)


def run_job(job: Job, directory: Path, tell: Tell, stop: Flag) -> list[Finished]:
    """Cells of one method, alone in their folders; stops between two outer steps once it is told to."""
    label = groups.label(job)
    folders = [directory / cell.folder for cell in job]
    text, trace, mendable = None, "", False
    try:
        with _alone_in(folders, lambda: Voice(label, tell, stop)(Event("waiting", 0))):
            # another command may have begun some of them, or finished them, while this one waited
            missing = [cell for cell in job if not records.is_finished(directory / cell.folder)]
            for group in groups.form(missing, directory, {job[0].row: len(job)}):
                run_cells(group.cells, directory, [Voice(label, tell, stop)], group.seeds)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        mendable = isinstance(error, UsageError)
        trace = "" if mendable else traceback.format_exc()
        text = f"{'' if mendable else f'{type(error).__name__}: '}{' '.join(str(error).split())}"
    return [finished_of(cell, directory, text, trace, mendable) for cell in job]


def finished_of(
    cell: Cell, directory: Path, error: str | None, trace: str = "", mendable: bool = False
) -> Finished:
    """What a cell came to: what it has recorded, else why it has not, with the traceback in its folder."""
    folder = directory / cell.folder
    if records.is_finished(folder):
        return Finished(cell.label, records.read_record(folder).result)
    if trace:
        records.write_atomically(folder / "error.txt", trace)
        error = f"{error} (the traceback is in {folder / 'error.txt'})"
    return Finished(cell.label, error=error, mendable=mendable)


@contextmanager
def _alone_in(folders: Sequence[Path], waiting: Callable[[], None]) -> Iterator[None]:
    """Hold runs' folders: a second command on the same folders waits until the first lets go.

    Taken in the order given, which must be the same for all commands: by seed.
    """
    with ExitStack() as held:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(open(folder / ".lock", "w"))
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(0.2)
        yield
