"""Options that several commands share."""

from __future__ import annotations

from typing import Any

import click

from metalearn_benchmarks.host.data_files import parse_toml
from metalearn_core.errors import UsageError

MAX_SHOWN = 100
"""Characters of an option that a message repeats."""
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def examples(*commands: str) -> str:
    """Return the end of a command's help: commands that can be copied as they are.

    Args:
        commands: The commands, whole.
    """
    title = "Example:" if len(commands) == 1 else "Examples:"
    return "\n".join(["\b", title, *(f"  {command}" for command in commands)])


class RenamedOption(click.Option):
    """An option that is still known by its former names, which the help does not show."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the words of the help, of the first name alone."""
        every, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every


def toml_option(text: str) -> tuple[str, Any]:
    """Parse `key=value` with a TOML value.

    Raises:
        UsageError: There is no `=`, or the value is no TOML.
    """
    key, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError("there is no =")
        found = parse_toml(f"value = {value}")
        if found.keys() != {"value"}:
            raise ValueError("there is more than one value")
        return key.strip(), found["value"]
    except ValueError as error:
        shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
        shown = shown.encode(errors="backslashreplace").decode()  # an argument need not be UTF-8
        beyond = f" ({error})" if len(text) > MAX_SHOWN else ""
        is_word = value.strip().replace("-", "_").isidentifier()
        quoted = shown.replace("=", '="', 1) + '"'
        raise UsageError(
            f"--option {shown}: expected key=value with a TOML value{beyond}"
            + (
                f"; text stands in quotes: '{quoted}'"
                if is_word
                else ", such as hidden=20 or 'inputs=[\"grad\"]'"
            )
        ) from error


SCALE = click.Choice(["smoke", "small", "paper"])
