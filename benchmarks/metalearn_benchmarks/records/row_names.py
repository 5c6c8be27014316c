"""The names of rows: a method, and after commas what was overridden in it, as in `turtle,steps=10`."""

from __future__ import annotations

import re

STEPS = "steps="
"""The start of an override of T."""
BETWEEN = re.compile(r",(?![^\[]*\])")
"""The comma between two overrides; those inside a list belong to its value."""


def base_method(name: str) -> str:
    """Return the method without anything that was overridden."""
    return BETWEEN.split(name)[0]


def overrides_steps(name: str) -> bool:
    """Whether a row has another T than its method."""
    return any(part.startswith(STEPS) for part in BETWEEN.split(name)[1:])


def without_steps(name: str) -> str:
    """Return the name of a row without an override of T: the same method at every T."""
    method, *others = BETWEEN.split(name)
    return ",".join([method, *(part for part in others if not part.startswith(STEPS))])


def title_without_steps(title: str) -> str:
    """Return the title of a row, such as `TURTLE (hidden=[20],steps=10)`, without an override of T."""
    before, opening, inside = title.partition(" (")
    if not opening or not inside.endswith(")"):
        return title
    kept = [part for part in BETWEEN.split(inside[:-1]) if not part.startswith(STEPS)]
    return f"{before} ({', '.join(kept)})" if kept else before
