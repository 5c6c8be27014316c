"""The zoo: trained rules that are shipped, by name. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metalearn_core.errors import unknown

SHIPPED = Path(__file__).parent / "shipped"
"""A folder for each trained rule, an artifact as `metalearn export` writes it."""


def zoo() -> dict[str, Path]:
    """Return the folder of each trained rule that is shipped, by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob("*/card.json"))}


def shipped_folder(name: str) -> Path:
    """Return the folder of a trained rule that is shipped.

    Raises:
        UsageError: There is none of this name.
    """
    found = zoo()
    if name not in found:
        raise unknown("trained rule", name, found)
    return found[name]


def shipped_card(name: str) -> dict[str, Any]:
    """Return the card of a trained rule that is shipped.

    Raises:
        UsageError: There is none of this name.
    """
    card: dict[str, Any] = json.loads((shipped_folder(name) / "card.json").read_text(encoding="utf-8"))
    return card
