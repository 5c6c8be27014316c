"""The zoo: trained rules by name, those that are shipped and those of the user's own. Imports no torch."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from metalearn_benchmarks.host.user_folders import data_folder
from metalearn_core.errors import UsageError, unknown

SHIPPED = Path(__file__).parent / "shipped"
"""A folder for each trained rule, an artifact as `metalearn export` writes it."""


NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


def own_home() -> Path:
    """Return the folder of the user's own trained rules: `zoo` in `METALEARN_DATA`, or in the user's data."""
    told = os.environ.get("METALEARN_DATA")
    return (Path(told) if told else data_folder()) / "zoo"


def zoo() -> dict[str, Path]:
    """Return the folder of each trained rule, by name: those that are shipped first."""
    return {**_in_folder(SHIPPED), **{k: v for k, v in _in_folder(own_home()).items() if k not in shipped()}}


def shipped() -> dict[str, Path]:
    """Return the folder of each trained rule that is shipped, by name."""
    return _in_folder(SHIPPED)


def _in_folder(home: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(home.glob("*/card.json"))}


def require_entry_name(name: str) -> None:
    """Check that a trained rule of the user's own may have a name.

    Raises:
        UsageError: It is no name of a folder, or a shipped rule has it.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"--zoo {name!r:.60}: use small letters, digits, . and - in the name of a trained rule"
        )
    if name in shipped():
        raise UsageError(f"--zoo {name}: a shipped rule has this name; choose another one")


def shipped_folder(name: str) -> Path:
    """Return the folder of a trained rule.

    Raises:
        UsageError: There is none of this name.
    """
    found = zoo()
    if name not in found:
        raise unknown("trained rule", name, found)
    return found[name]


def shipped_card(name: str) -> dict[str, Any]:
    """Return the card of a trained rule.

    Raises:
        UsageError: There is none of this name.
    """
    card: dict[str, Any] = json.loads((shipped_folder(name) / "card.json").read_text(encoding="utf-8"))
    return card
