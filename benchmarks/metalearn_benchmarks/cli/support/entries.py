"""Entries of a list: a line with a name and a title, and below it, indented, what there is to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from metalearn_benchmarks.host.escape import visible

INDENT = 4
"""The columns by which what is said of a name stands to the right of it."""


@attrs.frozen
class NamedEntry:
    """A name, its title, and what there is to say of it.

    Args:
        name: What a user types.
        title: What it is called.
        says: Sentences, each on a line of its own where the terminal is wide enough.
    """

    name: str
    title: str
    says: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = Text(visible(self.name), style="bold", overflow="fold")
        head.append(Text(f"  {visible(self.title)}", style="not bold"))
        yield from self._lines(head, console, options.max_width)
        for text in filter(None, self.says):
            said = Text(visible(text), overflow="fold")
            for line in self._lines(said, console, max(options.max_width - INDENT, 1)):
                yield Text(" " * INDENT).append(line)

    @staticmethod
    def _lines(text: Text, console: Console, width: int) -> Iterator[Text]:
        """The lines of a text at a width, without the blanks at their ends."""
        for line in text.wrap(console, width):
            line.rstrip()
            yield line
