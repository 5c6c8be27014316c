"""Groups of commands: they offer the nearest command for one that they lack, and help has sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from metalearn_core.errors import unknown


class CommandGroup(click.Group):
    """A group of commands.

    Args:
        sections: The names of commands under a heading each, in the order of the help. Empty for one list.
        given: As for click's own.
    """

    def __init__(self, *, sections: Mapping[str, Sequence[str]] | None = None, **given: Any) -> None:
        super().__init__(**given)
        self.sections = sections or {}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each section with what they do."""
        if not self.sections:
            super().format_commands(ctx, formatter)
            return
        longest = max(map(len, self.list_commands(ctx)))
        room = formatter.width - 6 - longest
        for heading, names in self.sections.items():
            with formatter.section(heading):
                found = [(name, self.get_command(ctx, name)) for name in names]
                rows = [(name, each.get_short_help_str(room)) for name, each in found if each is not None]
                formatter.write_dl([(name.ljust(longest), text) for name, text in rows])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; UsageError, with the nearest name, for one that does not exist."""
        if (
            not ctx.resilient_parsing
            and not args[0].startswith("-")
            and self.get_command(ctx, args[0]) is None
        ):
            raise unknown("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)
