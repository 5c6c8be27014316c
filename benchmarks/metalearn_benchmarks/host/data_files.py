"""Reading JSON and TOML that may come from anybody, within bounds. Imports no torch.

Python's own readers build whatever they are given: they recurse as deep as the text nests, and some texts
of a few kilobytes keep them busy for hours. Here such a text is refused, with a reason of a few words.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_DEPTH = 64
"""How deep tables and lists may nest. Nothing that this project writes is deeper than ten."""
MAX_DIGITS = 19
"""Digits of an integer: those of 64 bits, which is also what TOML promises."""
MAX_TOML_BYTES = 2**20
"""The largest TOML text that is read."""
MAX_JSON_BYTES = 2**29
"""The largest JSON text that is read: twenty million numbers."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_DOTTED_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_KEY}[ \t]*\.[ \t]*){{{MAX_DEPTH}}}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class MalformedError(ValueError):
    """A text that is not read. The message is the reason; the caller knows the file."""


def read_file(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Return the contents of a regular file.

    Args:
        path: The file.
        limit: The largest size, in bytes.

    Raises:
        MalformedError: It is a device or a pipe, or larger than the limit.
        OSError: The system does not give it.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise MalformedError("it is no regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise MalformedError(f"it is larger than {limit} bytes")
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a named pipe would wait for somebody who writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(text: bytes) -> Any:
    """Parse a JSON text.

    Raises:
        MalformedError: It is no JSON, or is beyond what is read.
    """
    import json  # help needs none of it

    try:
        value = json.loads(text.decode(), parse_int=_integer)
        if _SURROGATE.search(text):  # a pair of them is one character, one alone is none
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise MalformedError(f"it nests deeper than {MAX_DEPTH} levels") from None
    except UnicodeEncodeError:
        raise MalformedError("a text in it has half a character (a lone surrogate)") from None
    except MalformedError:
        raise
    except ValueError as error:
        raise MalformedError(str(error)) from error
    if not _is_shallow(text):
        _require_bounded(value)
    return value


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise MalformedError(f"an integer in it has more than {MAX_DIGITS} digits")
    return int(text)


def _is_shallow(text: bytes) -> bool:
    """Return whether the brackets of a text alone show that it is not too deep, which takes no time."""
    brackets = text.translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return False


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_toml(text: bytes | str) -> dict[str, Any]:
    """Parse a TOML text.

    Raises:
        MalformedError: It is no TOML, or is beyond what is read.
    """
    try:
        plain = text.decode() if isinstance(text, bytes) else text
        size = len(plain.encode())
        if size > MAX_TOML_BYTES:
            raise MalformedError(f"it is larger than {MAX_TOML_BYTES} bytes")
        if _LONG_DOTTED_KEY.search(plain):
            raise MalformedError(f"it nests deeper than {MAX_DEPTH} levels")
        found = tomllib.loads(plain)
    except RecursionError:
        raise MalformedError(f"it nests deeper than {MAX_DEPTH} levels") from None
    except UnicodeError:
        raise MalformedError("it is not UTF-8") from None
    except MalformedError:
        raise
    except ValueError as error:
        digits = "digits" in str(error) and not isinstance(error, tomllib.TOMLDecodeError)
        reason = f"an integer in it has more than {MAX_DIGITS} digits" if digits else str(error)
        raise MalformedError(reason) from error
    _require_bounded(found)
    return found


def _require_bounded(value: Any) -> None:
    """Raise MalformedError for what nests too deep, or holds an integer of more than 64 bits."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise MalformedError(f"it nests deeper than {MAX_DEPTH} levels")
        if any(type(one) is int and not -(2**63) <= one < 2**63 for one in level):
            raise MalformedError(f"an integer in it has more than {MAX_DIGITS} digits")
        level, depth = [inner for one in level for inner in _parts(one)], depth + 1


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
