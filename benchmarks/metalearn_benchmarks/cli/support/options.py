"""Options that several commands share."""

from __future__ import annotations

import tomllib
from typing import Any

import click

from metalearn_core.errors import UsageError

JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


def toml_option(text: str) -> tuple[str, Any]:
    """Parse `key=value` with a TOML value.

    Raises:
        UsageError: There is no `=`, or the value is no TOML.
    """
    key, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError("there is no =")
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except ValueError as error:
        raise UsageError(
            f"--option {text}: expected key=value with a TOML value, such as hidden=20 or 'inputs=[\"grad\"]'"
        ) from error


SCALE = click.Choice(["smoke", "small", "paper"])
