"""The progress of an experiment as a person sees it: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import time
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.runs.durations.estimates import format_duration
from metalearn_core import Event

QUIET_SECONDS = 10.0
"""Without a terminal, each run prints at most one line in this time."""
WIDE = 100
"""Columns of a terminal from which on there is room for long bars."""


@attrs.define
class RunLine:
    """The line of one run, or of several that train together.

    Args:
        bar: The bar that shows it.
        total: Meta-training tasks of the run.
        since: The task at which this command began or went on, and when, by the monotonic clock.
        note: What is shown beside the bar.
        compiling: Whether a program is being compiled; the next event is after it.
        printed_at: When a line was last printed, by the monotonic clock.
    """

    bar: TaskID
    total: int = 0
    since: tuple[int, float] | None = None
    note: str = ""
    compiling: bool = False
    printed_at: float = 0.0


def _time_left(line: RunLine, position: int, now: float) -> str:
    """How long the rest of the training takes at the pace so far, in words; empty where it is not known."""
    if line.since is None or position <= line.since[0] or now <= line.since[1]:
        return ""
    pace = (now - line.since[1]) / (position - line.since[0])
    return f"{format_duration(pace * max(line.total - position, 0))} left"


class Display:
    """A live bar for each run on a terminal; elsewhere a line with its time now and then.

    Args:
        console: The console to print on.
        cells: The number of runs.
    """

    def __init__(self, console: Console, cells: int) -> None:
        self.console = console
        self.lines: dict[str, RunLine] = {}
        self.said: set[str] = set()
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24 if console.width >= WIDE else 8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )
        self.overall = self.bars.add_task("all runs", total=cells, note="")

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def event(self, label: str, event: Event) -> None:
        """Show an event of a run; `label` names the run."""
        if event.kind == "observer":
            self._say_once(str(event.values["name"]), str(event.values["message"]))
            return
        if event.kind == "warning":
            message = f"{label}: {event.values['message']}"
            self._say_once(message, message)
            return
        line = self.lines.get(label)
        if line is None:
            line = self.lines[label] = RunLine(self.bars.add_task(visible(label), total=None, note=""))
        if event.kind == "start":
            line.total = int(event.values["tasks"])
            self.bars.update(line.bar, total=line.total or None)
        elif event.kind == "validation":
            line.note = f"validation {event.values['score']:.4g} (best {event.values['best']:.4g})"
        elif event.kind == "end":
            line.note = "testing"
        elif event.kind == "testing":
            line.note = f"testing: {event.values['done']} of {event.values['of']} tasks"
        elif event.kind == "engine" and event.values["note"]:
            self._say(f"{label}: {event.values['note']}")
        elif event.kind == "waiting":
            line.note = "waiting: another command has this run in hand"
        line.compiling = event.kind == "compiling"
        note = "compiling" if line.compiling else line.note
        self.bars.update(line.bar, completed=event.position, note=note)
        if not self.console.is_terminal and event.kind in ("step", "validation", "waiting", "compiling"):
            self._say_now_and_then(label, line, event)

    def _say(self, text: str, **style: Any) -> None:
        when = "" if self.console.is_terminal else f"{datetime.now():%Y-%m-%d %H:%M:%S} "
        self.console.print(f"{when}{visible(text)}", **style)

    def _say_once(self, what: str, message: str) -> None:
        if what not in self.said:
            self.said.add(what)
            self._say(message, style="yellow", soft_wrap=True)

    def _say_now_and_then(self, label: str, line: RunLine, event: Event) -> None:
        now = time.monotonic()
        if line.since is None and event.position:
            line.since = (event.position, now)
        if now - line.printed_at >= QUIET_SECONDS:
            line.printed_at = now
            parts = [
                f"task {event.position} of {line.total}",
                "compiling, which takes up to a minute" if line.compiling else line.note,
                _time_left(line, event.position, now),
            ]
            self._say(f"{label}: {', '.join(filter(None, parts))}")

    def skipped(self, label: str) -> None:
        """Show that a run was finished before."""
        self.bars.advance(self.overall)
        self._say(f"{label}: already done", style="dim")

    def finished(self, label: str, result: dict[str, Any]) -> None:
        """Show the result of a run."""
        self.bars.advance(self.overall)
        summary = result["summary"]
        mean, median = (math.nan if summary[of] is None else summary[of] for of in ("mean", "median"))
        numbers = [f"median error {median:.3f}", f"mean {mean:.3f}"]
        if result["higher_is_better"]:
            numbers = [f"mean {result['score']} {mean:.3f}", f"median {median:.3f}"]
        self._say(
            f"{label}: {numbers[0]}, {numbers[1]}; {summary['tasks']:,} test tasks, {result['seconds']:.0f} s"
        )

    def failed(self, line: str) -> None:
        """Show that a run failed; the others go on."""
        self._say(line, style="red")

    def end(self, label: str) -> None:
        """Remove the bar of a run that has ended."""
        if label in self.lines:
            self.bars.remove_task(self.lines.pop(label).bar)
