"""Strict parsing of TOML tables into attrs classes.

Unknown keys, missing keys and wrong types are errors, and the message names the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory

from metalearn_benchmarks.host.data_files import MalformedError, parse_toml
from metalearn_core.errors import UsageError, unknown

Hook = Callable[[Any, Any], Any]
"""A structure hook of cattrs."""


def read_toml(text: str, where: str) -> dict[str, Any]:
    """Parse the text of a TOML file.

    Args:
        text: The file's contents.
        where: The file's name, for the message.

    Raises:
        UsageError: The text is not TOML, or beyond what is read. The message has file, line and column.
    """
    try:
        return parse_toml(text)
    except MalformedError as error:
        raise UsageError(f"{where}: not TOML: {error}") from error


def structure_tables(data: dict[str, Any], kind: type[Any], where: str) -> Any:
    """Turn tables into an instance of `kind`.

    Args:
        data: The tables.
        kind: An attrs class.
        where: The file's name, for the message.

    Raises:
        UsageError: A key is wrong or missing. The message names the first one.
    """
    try:
        return CONVERTER.structure(data, kind)
    except Exception as error:
        raise UsageError(f"{where}: {next(_complaints(error))[1]}") from error


def require_valid_tables(data: dict[str, Any], kind: type[Any], where: str) -> None:
    """Check tables as `structure_tables` does, but allow missing keys, which a file may inherit."""
    try:
        CONVERTER.structure(data, kind)
    except Exception as error:
        wrong = [message for missing, message in _complaints(error) if not missing]
        if wrong:
            raise UsageError(f"{where}: {wrong[0]}") from error


def _complaints(error: BaseException, path: str = "") -> Iterator[tuple[bool, str]]:
    """Yield every problem as a message with its key, and whether the key is only missing."""
    if isinstance(error, BaseExceptionGroup):
        # a key that is misspelt is also missing: say the first
        for inner in sorted(error.exceptions, key=lambda e: not isinstance(e, ForbiddenExtraKeysError)):
            keys = (_key_of(note) for note in getattr(inner, "__notes__", []))
            key = next((key for key in keys if key is not None), None)
            yield from _complaints(inner, path if key is None else f"{path}.{key}".lstrip("."))
    elif isinstance(error, ForbiddenExtraKeysError):
        key = sorted(error.extra_fields)[0]
        known = [f"{path}.{field.name}".lstrip(".") for field in attrs.fields(error.cl)]
        yield False, str(unknown("key", f"{path}.{key}".lstrip("."), known))
    elif isinstance(error, KeyError):
        yield True, f"key {path!r} is missing"
    else:
        yield False, f"key {path!r}: {error}" if path else str(error)


def _key_of(note: object) -> str | None:
    """Return the key that a note of cattrs on an error refers to."""
    if isinstance(note, IterableValidationNote):
        return str(note.index)
    return note.name if isinstance(note, AttributeValidationNote) else None


def _strictly(kind: type[Any]) -> Hook:
    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError(f"expected {kind.__name__}, got {value!r}")
        return value

    return structure


def _table(inner: Hook) -> Hook:
    def structure(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"expected a table, got {value!r}")
        return inner(value, kind)

    return structure


def _list_of(kind: type[Any]) -> Hook:
    (element,) = get_args(kind)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {value!r}")
        if not attrs.has(element):
            return [CONVERTER.structure(one, element) for one in value]
        return [_numbered(index, one, element) for index, one in enumerate(value)]

    return structure


def _numbered(index: int, value: Any, kind: type[Any]) -> Any:
    """Structure one table of a list; an error in it has the table's number."""
    try:
        return CONVERTER.structure(value, kind)
    except Exception as error:
        error.add_note(IterableValidationNote("", index, kind))
        raise IterableValidationError("", [error], kind) from error


def _made_of(origin: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is origin


CONVERTER = cattrs.Converter(forbid_extra_keys=True)
"""The converter that does not coerce types and refuses unknown keys."""
for _kind in (int, str):  # cattrs would turn 3 into "3" and "3" into 3
    CONVERTER.register_structure_hook(_kind, _strictly(_kind))
CONVERTER.register_structure_hook_factory(
    attrs.has, lambda kind: _table(make_dict_structure_fn(kind, CONVERTER, _cattrs_forbid_extra_keys=True))
)
CONVERTER.register_structure_hook_factory(
    _made_of(dict),
    lambda kind: _table(mapping_structure_factory(kind, CONVERTER)),
)
CONVERTER.register_structure_hook_factory(_made_of(list), _list_of)
