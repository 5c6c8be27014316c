"""What a person sees while an experiment runs. rich draws it."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Any, Self

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from metalearn_core import Event

QUIET_SECONDS = 10.0
"""Without a terminal: at most one line in this time for each run."""


@attrs.define
class Line:
    """One run under way, or several that train together."""

    bar: TaskID
    total: int = 0
    note: str = ""
    told_at: float = 0.0


class Display:
    """A live bar for each run on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console, cells: int) -> None:
        self.console = console
        self.lines: dict[str, Line] = {}
        self.failed_observers: set[str] = set()
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
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
        """What a run tells of itself."""
        if event.kind == "observer":
            self._say_once(str(event.values["name"]), str(event.values["message"]))
            return
        line = self.lines.get(label)
        if line is None:
            line = self.lines[label] = Line(self.bars.add_task(label, total=None, note=""))
        if event.kind == "start":
            line.total = int(event.values["tasks"])
            self.bars.update(line.bar, total=line.total or None)
        elif event.kind == "validation":
            line.note = f"validation {event.values['score']:.4g} (best {event.values['best']:.4g})"
        elif event.kind == "end":
            line.note = "testing"
        elif event.kind == "testing":
            line.note = f"testing: {event.values['done']} of {event.values['of']} tasks"
        elif event.kind == "compiling":
            line.note = "compiling"
        elif event.kind == "engine" and event.values["note"]:
            self.console.print(f"{label}: {event.values['note']}", markup=False)
        elif event.kind == "waiting":
            line.note = "waiting: another command has this run in hand"
        self.bars.update(line.bar, completed=event.position, note=line.note)
        if not self.console.is_terminal and event.kind in ("step", "validation", "waiting"):
            self._say_now_and_then(label, line, event)

    def _say_once(self, observer: str, message: str) -> None:
        if observer not in self.failed_observers:
            self.failed_observers.add(observer)
            self.console.print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _say_now_and_then(self, label: str, line: Line, event: Event) -> None:
        now = time.monotonic()
        if now - line.told_at >= QUIET_SECONDS:
            line.told_at = now
            told = f"{label}: task {event.position} of {line.total}, {line.note}"
            self.console.print(told, markup=False)

    def skipped(self, label: str) -> None:
        """A run that is finished already."""
        self.bars.advance(self.overall)
        self.console.print(f"{label}: already done", style="dim", markup=False)

    def finished(self, label: str, result: dict[str, Any]) -> None:
        """A run has its result."""
        self.bars.advance(self.overall)
        summary = result["summary"]
        numbers = (summary["mean"], *summary["ci95"], summary["median"])
        mean, low, high, median = (math.nan if x is None else x for x in numbers)
        self.console.print(
            f"{label}: mean {mean:.3f} [{low:.3f}, {high:.3f}], median {median:.3f} over"
            f" {summary['tasks']} test tasks, {result['seconds']:.0f} s",
            markup=False,
        )

    def failed(self, line: str) -> None:
        """A run that did not end well; the others go on."""
        self.console.print(line, style="red", markup=False, highlight=False)

    def end(self, label: str) -> None:
        """Nothing more is told under this name."""
        if label in self.lines:
            self.bars.remove_task(self.lines.pop(label).bar)
