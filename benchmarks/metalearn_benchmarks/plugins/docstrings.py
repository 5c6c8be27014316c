"""The parts of a docstring: its description, and the meaning of each argument under `Args:`."""

from __future__ import annotations

import re

SECTION = re.compile(r"^(Args|Returns|Raises|Yields):\s*$", re.MULTILINE)


def description(text: str) -> str:
    """Return everything before the first section."""
    return SECTION.split(text, maxsplit=1)[0].strip()


def arguments(text: str) -> dict[str, str]:
    """Return the meaning of each argument under `Args:`.

    Args:
        text: The docstring as `inspect.getdoc` gives it. An entry is `name: meaning`, or `a, b: meaning`.
    """
    parts = SECTION.split(text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in sections.get("Args", "").splitlines():
        begins = re.match(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)$", line)
        if begins:
            names = begins[1].split(", ")
        elif not line.startswith("     ") and line.strip():
            names = []  # back at the margin: the section is over
        for name in names:
            more = begins[2] if begins else line.strip()
            meanings[name] = f"{meanings.get(name, '')} {more}".strip()
    return meanings
