"""What the commands print: lines and tables for people, JSON for programs.

All that a command prints goes through here, so that no title and no path can steer the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from metalearn_benchmarks.host.escape import as_json, for_terminal
from metalearn_core.errors import UsageError

LOG_WIDTH = 140
"""Columns of a log, which has no width of its own."""


class OutputError(UsageError):
    """Standard output, or standard error, cannot be written.

    Args:
        error: What the system says.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written ({error.strerror or error}); send it somewhere else")
        self.reader_left = isinstance(error, BrokenPipeError)


class GuardedStream:
    """A text stream that writes what it can, and raises OutputError where the system refuses.

    Args:
        stream: The stream. Characters that its encoding lacks become question marks.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return int(self._stream.write(text))
        except OSError as error:
            raise OutputError(error) from error

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self._stream.flush()
        except OSError as error:
            raise OutputError(error) from error


@contextmanager
def guarded_output() -> Iterator[None]:
    """Guard standard output and standard error in this context, and flush them at its end."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (None if stream is None else GuardedStream(stream) for stream in before)
    try:
        yield
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        sys.stdout, sys.stderr = before


def discard_output() -> None:
    """Send what is still held back nowhere: Python would try to write it at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, OutputError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def console(stderr: bool = False) -> Any:
    """Open a `rich.console.Console` as wide as the terminal, or wide enough for tables in a log.

    Nothing in brackets or between colons has a meaning in it, and no number has a colour.

    Args:
        stderr: Whether it writes to the standard error in place of the standard output.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    has_width = "COLUMNS" in os.environ or (stream is not None and stream.isatty())
    width = None if has_width else LOG_WIDTH
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def echo(text: str = "", err: bool = False, end: str = "\n") -> None:
    """Print a text of one or several lines, what steers a terminal in it as escapes.

    Args:
        text: The text.
        err: Whether it goes to the standard error.
        end: What follows it.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        stream.write(for_terminal(text) + end)
        stream.flush()


def print_json(data: Any) -> None:
    """Print plain data as JSON on the standard output."""
    echo(as_json(data, getattr(sys.stdout, "encoding", None) or "utf-8"))


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = (), order: Sequence[str] = ()) -> Any:
    """Build a table for a console; see `fitted_table`."""
    from metalearn_benchmarks.host.table_fitting import fitted_table

    return fitted_table(rows, names, order)


def print_table(
    rows: Sequence[Mapping[str, Any]], as_json: bool, names: Sequence[str] = (), order: Sequence[str] = ()
) -> None:
    """Print rows on the standard output, as a table or as JSON; the rest is as for `fitted_table`."""
    if as_json:
        print_json(rows)
    else:
        console().print(table(rows, names, order))
