r"""Text of users, records, plugins and files, made harmless for where it goes: a function for each place.

A title, a path or a plugin's name may hold anything: line breaks, escape sequences that steer a terminal,
commands of LaTeX, bytes that are no text. What a reader cannot see is shown as Python writes it: `\x1b`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

JOINERS = "\u200c\u200d"
"""Without these some scripts, and some emoji, are spelt wrongly."""
MARKDOWN = re.compile(r"[\\`*~$|<]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|\](?=[(\[:])")
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip
LONGEST_LABEL = 120
"""A longer label of a figure leaves no room for its curves."""
LONGEST_PART = 200
"""Bytes of a part of a file's name. File systems allow 255 for all of it."""
NOT_IN_FILE_NAMES = '/\\:*?"<>|'


def visible(text: str, keep: str = "") -> str:
    """Show what a reader cannot see, and what is no text, as escapes: one line, for a terminal too.

    Args:
        text: Any text. The bytes of a path that are not UTF-8 may stand in it, as lone surrogates.
        keep: Characters that stay, such as the line break.
    """
    if text.isprintable():  # nearly all
        return text
    return "".join(c if _is_seen(c) or c in keep else c.encode("unicode_escape").decode() for c in text)


def _is_seen(character: str) -> bool:
    # spaces of every width are seen as gaps; `isprintable` knows the plain one alone
    return character.isprintable() or unicodedata.category(character) == "Zs" or character in JOINERS


def for_terminal(text: str) -> str:
    """Escape a text of several lines for a terminal."""
    return visible(text, keep="\n\t")


def for_html(text: str) -> str:
    """Make a text one that a page can hold; the template escapes what HTML gives a meaning."""
    return visible(text, keep="\n\t")


def for_figure(text: str) -> str:
    """Escape a text for a title or a legend of Matplotlib, drawn as it is: `RC_PARAMS` forbids formulas."""
    shown = visible(text)
    shown = shown if len(shown) <= LONGEST_LABEL else f"{shown[: LONGEST_LABEL - 1]}…"
    # a legend leaves out every label that begins so
    return f" {shown}" if shown.startswith("_") else shown


def for_markdown(text: str) -> str:
    """Escape a text for a line of Markdown, or for a cell of a table in it."""
    return MARKDOWN.sub(r"\\\g<0>", visible(text))


def for_latex(text: str) -> str:
    """Escape a text for a cell of a table in LaTeX."""
    shown = "".join(LATEX.get(character, character) for character in visible(text))
    # at the beginning of a row these would be arguments of the line break before
    return f"{{{shown[0]}}}{shown[1:]}" if shown.startswith(("[", "*")) else shown


def for_file_name(text: str) -> str:
    """Make a text a part of a file's name that stays in its folder, and leaves room for an ending."""
    name = "".join("-" if c in NOT_IN_FILE_NAMES or not _is_seen(c) else c for c in text)
    if len(name.encode()) <= LONGEST_PART:
        return name
    import hashlib  # help needs none of it

    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name.encode()[: LONGEST_PART - 15].decode(errors='ignore')}...{digest}"


def as_json(data: Any, encoding: str = "utf-8") -> str:
    """Return data as JSON in plain letters where these are seen and can be written, and in escapes elsewhere.

    Args:
        data: Plain data.
        encoding: What the text will be encoded as.
    """
    import json  # help needs none of it

    text = json.dumps(data, indent=1, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(data, indent=1)
    return text if for_terminal(text) == text else json.dumps(data, indent=1)
