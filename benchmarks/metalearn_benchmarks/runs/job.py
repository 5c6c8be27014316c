"""One job of a run: cells of one method, alone in their folders, told of as one."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import attrs

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.host.locks import locked
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.compatibility import require_same_experiment
from metalearn_benchmarks.records.files import ERROR, AnotherExperimentError, write_atomically
from metalearn_benchmarks.records.quarantine import quarantine, quarantine_damaged
from metalearn_benchmarks.runs import seed_groups
from metalearn_benchmarks.runs.components import resolved
from metalearn_benchmarks.runs.training import run_cells
from metalearn_core import Event, LostProcessError, Processes, UsageError
from metalearn_core.errors import CheckpointError, RuleError, WriteError, writing

Tell = Callable[[str, Event], None]
Job = seed_groups.Group
"""Cells of one method that are run together, by seed."""
TOLD_SECONDS = 0.2
"""A worker tells of its steps at most once in this time; of all else, always."""


class Stop(Protocol):
    """Whether Ctrl-C was pressed, and whether whoever is told may raise KeyboardInterrupt at any moment."""

    at_once: bool

    def is_set(self) -> bool:
        """Whether to stop."""


@attrs.frozen
class CellOutcome:
    """What one cell came to: its result, or why there is none. Neither: it was told to stop."""

    label: str
    result: dict[str, Any] | None = None
    error: str | None = None
    mendable: bool = False


@attrs.define
class GroupReporter:
    """Tells of the seeds that train together as of one run, the one that is furthest; stops when told to.

    Raises KeyboardInterrupt between two outer steps, or two batches of an evaluation, once `stop` is set;
    while a program is compiled, which takes long and loses nothing, `stop` may do so at once.
    """

    label: str
    tell: Tell
    stop: Stop
    position: int = 0
    told: dict[str, int] = attrs.field(factory=dict)
    validated: list[Event] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        self.stop.at_once = event.kind == "compiling"
        if event.kind == "observer":  # of any seed, wherever it stands
            self.tell(self.label, event)
        elif self._is_news(event):
            self.told[event.kind] = event.position
            self.position = event.position
            self.tell(self.label, self._averaged(event) if event.kind == "validation" else event)
        if self.stop.is_set():
            raise KeyboardInterrupt

    def _is_news(self, event: Event) -> bool:
        """Not what another seed has said, nor what one says that diverged; one that is behind takes steps."""
        many = event.kind in ("evaluating", "validation", "waiting", "testing")
        ahead = event.position >= self.position or event.kind == "step"
        return ahead and (many or self.told.get(event.kind) != event.position)

    def _averaged(self, event: Event) -> Event:
        """A validation, with the mean over the seeds that have been validated here."""
        self.validated = [past for past in self.validated if past.position == event.position] + [event]
        mean = {key: fmean(float(past.values[key]) for past in self.validated) for key in event.values}
        return Event(event.kind, event.position, mean)


def run_job(
    job: Job, directory: Path, tell: Tell, stop: Stop, processes: Processes | None = None
) -> list[CellOutcome]:
    """Cells of one method, alone in their folders; stops between two outer steps once it is told to.

    Args:
        processes: those that share each meta-batch, as in `run_cells`.

    Raises:
        WriteError, AnotherExperimentError: what would keep any other job from running too.
    """
    voice, trace, mendable, text = GroupReporter(seed_groups.label(job.cells), tell, stop), "", False, None
    folders = [directory / cell.folder for cell in job]
    try:
        with _alone_in(folders, lambda: voice(Event("waiting", 0))):
            # another command may have begun some of them, or finished them, while this one waited
            for folder in folders:
                quarantine_damaged(folder)
            require_same_experiment(directory, [resolved(job.cells[0])])
            while not _run_missing(job, directory, voice, processes):
                pass
    except KeyboardInterrupt:
        pass
    except (WriteError, AnotherExperimentError):
        raise
    except Exception as error:
        mendable = isinstance(error, UsageError)
        lost = isinstance(error, LostProcessError)
        silent = lost or (mendable and not isinstance(error, RuleError))
        trace = "" if silent else traceback.format_exc()
        text = f"{'' if mendable or lost else f'{type(error).__name__}: '}{' '.join(str(error).split())}"
        if lost and stop.is_set():  # the other one was told to stop as well, and was faster
            text = None
    return [finished_of(cell, directory, text, trace, mendable) for cell in job]


def _run_missing(job: Job, directory: Path, voice: GroupReporter, processes: Processes | None) -> bool:
    """Run those that have no result; False where a checkpoint was set aside and it has to be begun again."""
    missing = [cell for cell in job if not record.is_finished(directory / cell.folder)]
    try:
        for group in seed_groups.form_groups(missing, directory, {job.cells[0].row: job.seeds}):
            watchers = [GroupReporter(voice.label, voice.tell, voice.stop)]
            run_cells(group.cells, directory, watchers, group.seeds, processes=processes)
    except CheckpointError as error:
        quarantine(error.path, error.reason, "damaged" if error.damaged else "foreign")
        return False
    return True


def finished_of(
    cell: Cell, directory: Path, error: str | None, trace: str = "", mendable: bool = False
) -> CellOutcome:
    """What a cell came to: what it has recorded, else why it has not, with the traceback in its folder."""
    folder = directory / cell.folder
    if record.is_finished(folder):
        try:
            return CellOutcome(cell.label, record.read_record(folder).result)
        except UsageError as unreadable:  # a newer version wrote it: it is left alone
            error, trace, mendable = str(unreadable), "", True
    if trace:
        write_atomically(folder / ERROR, trace)
        error = f"{error} (the traceback is in {folder / ERROR})"
    return CellOutcome(cell.label, error=error, mendable=mendable)


@contextmanager
def _alone_in(folders: Sequence[Path], waiting: Callable[[], None]) -> Iterator[None]:
    """Hold runs' folders: a second command on the same folders waits until the first lets go.

    Taken in the order given, which must be the same for all commands: by seed.
    """
    with ExitStack() as held:
        for folder in folders:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(folder / ".lock", waiting))
        yield
