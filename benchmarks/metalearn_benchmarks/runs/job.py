"""One job: the cells of a seed group, run while their folders are locked, and reported as one run."""

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
from metalearn_benchmarks.runs.resolution import resolve_cell
from metalearn_benchmarks.runs.training import run_cells
from metalearn_core import Event, LostProcessError, Processes, UsageError
from metalearn_core.errors import CheckpointError, RuleError, WriteError, writing

EventCallback = Callable[[str, Event], None]
"""Called with a run's label and an event."""
Job = seed_groups.SeedGroup
"""Cells of one method that run together, by seed."""
STEP_REPORT_SECONDS = 0.2
"""A worker reports its steps at most this often. It reports every other event."""


class StopFlag(Protocol):
    """Whether a run has to stop.

    Attributes:
        interruptible: Whether a KeyboardInterrupt may be raised at any moment, because nothing would be lost.
    """

    interruptible: bool

    def is_set(self) -> bool:
        """Return whether to stop."""


@attrs.frozen
class CellOutcome:
    """The outcome of a cell. It has neither result nor error where it was stopped.

    Args:
        label: The cell's name in messages.
        result: Its result.
        error: Why there is no result.
        user_error: Whether the user can correct the error.
    """

    label: str
    result: dict[str, Any] | None = None
    error: str | None = None
    user_error: bool = False


@attrs.define
class GroupReporter:
    """Observer that reports the events of seeds that train together as those of one run.

    An event is reported once, when the first seed gets there. Validations are averaged over the seeds. Once
    `stop` is set, KeyboardInterrupt is raised between two outer steps or two batches of an evaluation. While
    a program is compiled, which takes long and loses nothing, `stop` itself may raise it at any moment.

    Args:
        label: The group's name in messages.
        tell: Called with what is reported.
        stop: Whether to stop.
        position: The position that the first seed has reached.
        last_positions: The last position of each kind of event that was reported.
        validations: The validations of the current position.
    """

    label: str
    tell: EventCallback
    stop: StopFlag
    position: int = 0
    last_positions: dict[str, int] = attrs.field(factory=dict)
    validations: list[Event] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        self.stop.interruptible = event.kind == "compiling"
        if event.kind in ("observer", "warning"):  # of any seed, wherever it stands
            self.tell(self.label, event)
        elif self._is_news(event):
            self.last_positions[event.kind] = event.position
            self.position = event.position
            self.tell(self.label, self._averaged(event) if event.kind == "validation" else event)
        if self.stop.is_set():
            raise KeyboardInterrupt

    def _is_news(self, event: Event) -> bool:
        """Return whether no seed has reported this yet. Of seeds that are behind, only steps count."""
        many = event.kind in ("evaluating", "validation", "waiting", "testing")
        ahead = event.position >= self.position or event.kind == "step"
        return ahead and (many or self.last_positions.get(event.kind) != event.position)

    def _averaged(self, event: Event) -> Event:
        """Return a validation with the mean over the seeds that were validated at its position."""
        self.validations = [past for past in self.validations if past.position == event.position] + [event]
        mean = {key: fmean(float(past.values[key]) for past in self.validations) for key in event.values}
        return Event(event.kind, event.position, mean)


def run_job(
    job: Job, directory: Path, tell: EventCallback, stop: StopFlag, processes: Processes | None = None
) -> list[CellOutcome]:
    """Run the cells of a job while their folders are locked.

    Args:
        job: The cells.
        directory: DIR.
        tell: Called with the job's label and each event.
        stop: Whether to stop, which is done between two outer steps.
        processes: The processes that share each meta-batch, as in `run_cells`.

    Returns:
        The outcome of each cell.

    Raises:
        WriteError: The disk refuses a file, which would also fail every other job.
        AnotherExperimentError: DIR holds another experiment, which would also fail every other job.
    """
    reporter = GroupReporter(seed_groups.group_label(job.cells), tell, stop)
    trace, user_error, text = "", False, None
    folders = [cell.folder_in(directory) for cell in job]
    try:
        with _alone_in(folders, lambda: reporter(Event("waiting", 0))):
            # another command may have started or finished some of them while this one waited
            for folder in folders:
                quarantine_damaged(folder)
            require_same_experiment(directory, [resolve_cell(job.cells[0])])
            while not _run_missing(job, directory, reporter, processes):
                pass
    except KeyboardInterrupt:
        pass
    except (WriteError, AnotherExperimentError):
        raise
    except Exception as error:
        user_error = isinstance(error, UsageError)
        lost = isinstance(error, LostProcessError)
        silent = lost or (user_error and not isinstance(error, RuleError))
        trace = "" if silent else traceback.format_exc()
        text = f"{'' if user_error or lost else f'{type(error).__name__}: '}{' '.join(str(error).split())}"
        if lost and stop.is_set():  # the other process was stopped, too, and was faster
            text = None
    return [outcome_of_cell(cell, directory, text, trace, user_error) for cell in job]


def _run_missing(job: Job, directory: Path, reporter: GroupReporter, processes: Processes | None) -> bool:
    """Run the cells without a result; return False, to run again, if a bad checkpoint was moved aside."""
    missing = [cell for cell in job if not record.is_finished(cell.folder_in(directory))]
    try:
        for group in seed_groups.form_groups(missing, directory, {job.cells[0].row: job.seeds}):
            observers = [GroupReporter(reporter.label, reporter.tell, reporter.stop)]
            run_cells(group.cells, directory, observers, group.seeds, processes=processes)
    except CheckpointError as error:
        quarantine(error.path, error.reason, "damaged" if error.damaged else "foreign")
        return False
    return True


def outcome_of_cell(
    cell: Cell, directory: Path, error: str | None, trace: str = "", user_error: bool = False
) -> CellOutcome:
    """Return the outcome of a cell: its recorded result, or the error. Writes the traceback to its folder.

    Args:
        cell: The cell.
        directory: DIR.
        error: Why it has no result; None where it was stopped.
        trace: The traceback.
        user_error: Whether the user can correct the error.
    """
    folder = cell.folder_in(directory)
    if record.is_finished(folder):
        try:
            return CellOutcome(cell.label, record.read_record(folder).result)
        except UsageError as unreadable:  # a newer version wrote it: it is left alone
            error, trace, user_error = str(unreadable), "", True
    if trace:
        write_atomically(folder / ERROR, trace)
        error = f"{error} (the traceback is in {folder / ERROR})"
    return CellOutcome(cell.label, error=error, user_error=user_error)


@contextmanager
def _alone_in(folders: Sequence[Path], waiting: Callable[[], None]) -> Iterator[None]:
    """Hold runs' folders: a second command on the same folders waits until the first lets go.

    Taken in the order given, which must be the same for all commands: by seed.
    """
    with ExitStack() as held:
        for folder in folders:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / ".lock").touch()
            held.enter_context(locked(folder / ".lock", waiting))
        yield
