"""What a docstring says: its description, and the meaning of each argument under `Args:`."""

from __future__ import annotations

import re

SECTION = re.compile(r"^(Args|Returns|Raises|Yields):\s*$", re.MULTILINE)


def description(text: str) -> str:
    """Everything before the first section."""
    return SECTION.split(text, maxsplit=1)[0].strip()


def arguments(text: str) -> dict[str, str]:
    """`name: meaning`, or `a, b: meaning` of both, under `Args:`; `text` as inspect.getdoc gives it."""
    parts = SECTION.split(text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    found: dict[str, str] = {}
    names: list[str] = []
    for line in sections.get("Args", "").splitlines():
        begins = re.match(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)$", line)
        if begins:
            names = begins[1].split(", ")
        elif not line.startswith("     ") and line.strip():
            names = []  # back at the margin: the section is over
        for name in names:
            more = begins[2] if begins else line.strip()
            found[name] = f"{found.get(name, '')} {more}".strip()
    return found
