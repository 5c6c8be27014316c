"""The names of rows: a method, and after commas what was overridden in it, as in `turtle,steps=10`."""

from __future__ import annotations

import re

STEPS = "steps="
"""The start of an override of T."""
BETWEEN = re.compile(r",(?![^\[]*\])")
"""The comma between two overrides; those inside a list belong to its value."""

LIST = re.compile(r"\[([\d, ]*)\]")


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


def compact_title(title: str) -> str:
    """Return the title of a row with lists of equal numbers in short: `3×20` for `[20,20,20]`."""
    return LIST.sub(_short_list, title)


def _short_list(found: re.Match[str]) -> str:
    numbers = [number.strip() for number in found[1].split(",") if number.strip()]
    if not numbers:
        return "none"
    return f"{len(numbers)}×{numbers[0]}" if len(set(numbers)) == 1 else found[0]


def title_without_steps(title: str) -> str:
    """Return the title of a row, such as `TURTLE (hidden=[20],steps=10)`, without an override of T."""
    before, opening, inside = title.partition(" (")
    if not opening or not inside.endswith(")"):
        return title
    kept = [part for part in BETWEEN.split(inside[:-1]) if not part.startswith(STEPS)]
    return f"{before} ({', '.join(kept)})" if kept else before
