"""The interface of a display of progress. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from metalearn_core import Event


class Progress(Protocol):
    """Shows how far runs are. `label` is the name of a run in messages, see `Cell.label`."""

    def event(self, label: str, event: Event) -> None:
        """Show an event of a run."""

    def skipped(self, label: str) -> None:
        """Show that a run had already finished."""

    def finished(self, label: str, result: dict[str, Any]) -> None:
        """Show that a run has its result, the contents of its `result.json`."""

    def failed(self, line: str) -> None:
        """Show a line about a run that did not end well. The others go on."""

    def end(self, label: str) -> None:
        """Stop showing a run: nothing more will be reported under this label."""
