"""What runs need of whoever shows their progress. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from metalearn_core import Event


class Progress(Protocol):
    """Shows how far runs are. `label` is a run's name for people, see `Cell.label`."""

    def event(self, label: str, event: Event) -> None:
        """Show what a run tells of itself."""

    def skipped(self, label: str) -> None:
        """Show that a run was finished already."""

    def finished(self, label: str, result: dict[str, Any]) -> None:
        """Show that a run has its result, the contents of its `result.json`."""

    def failed(self, line: str) -> None:
        """Show a line about a run that did not end well; the others go on."""

    def end(self, label: str) -> None:
        """Stop showing a run: nothing more comes under this name."""
