"""Safe unpickling of files from strangers: numbers, arrays of them and plain containers load, nothing else.

Python's own unpickler calls what a pickle names, builds objects of any class that it was handed, and
overflows the stack over a key that is nested deeply. So the few operations that pickles of images need
stand here.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import numpy as np

from metalearn_benchmarks.tasks.images.readers.admitted import (
    Global,
    NumberType,
    RefusedError,
    Workshop,
    find_global,
    require_keys,
)
from metalearn_core.errors import UsageError

MOST_OPERATIONS = 20_000_000
"""Operations of one pickle, each of which may make an object. The largest known ones have half a million."""
LARGEST_INTEGER = 255
"""Bytes."""
NEWEST = 5
"""The newest protocol of pickles."""


class _Machine:
    """The stack, the memo and the file of one pickle.

    A read at the end of the file gives too few bytes. The next operation then is none: the pickle is damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self._readline = file.readline
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """The stacks under the marks that are open."""
        self.memo: dict[int, Any] = {}
        self.shop = Workshop(file.tell)

    def load(self) -> Any:
        """Carry out operations to the end, and return what is on the stack then."""
        read = self.read
        for _ in range(MOST_OPERATIONS):
            code = read(1)
            step = STEPS.get(code)
            if step is not None:
                step(self, read)
            elif code == b".":
                return self.stack.pop()
            elif code in REFUSED:
                raise RefusedError(REFUSED[code])
            else:
                raise ValueError(f"no operation {code!r}" if code else "it ends too early")
        raise RefusedError(f"it asks for more than {MOST_OPERATIONS:,} operations")

    def line(self) -> bytes:
        """Read a line, and return it without its end."""
        data = self._readline()
        if not data.endswith(b"\n"):
            raise EOFError("it ends too early")
        return data[:-1]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """Take everything that lies above the last mark."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def last(self, count: int) -> tuple[Any, ...]:
        """Take the last objects of the stack."""
        if len(self.stack) < count:
            raise IndexError("an object is missing")
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        return found

    def top(self, kind: type) -> Any:
        """Return the last object, which must be of exactly this type, and stays where it is."""
        if type(self.stack[-1]) is not kind:
            raise RefusedError(
                f"it asks for a {type(self.stack[-1]).__name__} to be changed as a {kind.__name__}"
            )
        return self.stack[-1]

    def set_items(self, given: list[Any]) -> None:
        keys = given[::2]
        require_keys(keys)
        self.top(dict).update(zip(keys, given[1::2], strict=True))

    def extend(self, given: Iterable[Any]) -> None:
        self.top(list).extend(given)

    def add(self, given: list[Any]) -> None:
        require_keys(given)
        self.top(set).update(given)

    def make_dictionary(self) -> None:
        given = self.since_mark()
        self.push({})
        self.set_items(given)

    def make_frozenset(self) -> None:
        given = self.since_mark()
        require_keys(given)
        self.push(frozenset(given))

    def put(self, at: int) -> None:
        if at < 0:
            raise ValueError("no place of the memo")
        self.memo[at] = self.stack[-1]

    def find(self, module: Any, name: Any) -> None:
        self.push(find_global(module, name))

    def call(self) -> None:
        which, arguments = self.last(2)
        if not isinstance(which, Global) or type(arguments) is not tuple:
            raise RefusedError(f"it asks for a call of a {type(which).__name__}")
        self.push(which.make(self.shop, *arguments))

    def build(self) -> None:
        target, state = self.last(2)
        if isinstance(target, NumberType):
            target.build(state)
        elif type(target) is np.ndarray:
            self.shop.fill(target, state)
        else:
            raise RefusedError(f"it asks for a {type(target).__name__} to be built")
        self.push(target)


Read = Callable[[int], bytes]
Step = Callable[[_Machine, Read], object]


def _number(data: bytes, signed: bool = False) -> int:
    return int.from_bytes(data, "little", signed=signed)


def _protocol(_: _Machine, read: Read) -> None:
    if (found := _number(read(1))) > NEWEST:
        raise ValueError(f"protocol {found}, the newest one is {NEWEST}")


def _integer(line: bytes) -> int | bool:
    return line == b"01" if line in (b"00", b"01") else int(line)


def _long(read: Read, width: int) -> int:
    size = _number(read(width))
    if size > LARGEST_INTEGER:
        raise RefusedError(f"it asks for an integer of {size} bytes")
    return _number(read(size), signed=True)


def _counted(read: Read, width: int) -> bytes:
    """Bytes behind their number, which has so many bytes."""
    return read(_number(read(width)))


def _quoted(line: bytes) -> str:
    """A string of Python 2 as it stands in a program."""
    line = line.strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise ValueError("a string without its quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin1")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


STEPS: dict[bytes, Step] = {
    # where it begins, and what the stack holds
    b"\x80": _protocol, b"\x95": lambda m, read: read(8),
    b"(": lambda m, _: m.mark(), b"0": lambda m, _: m.last(1), b"1": lambda m, _: m.since_mark(),
    b"2": lambda m, _: m.push(m.stack[-1]),
    # constants and numbers; those that pickles have by the ten thousand are written without a call too many
    b"N": lambda m, _: m.push(None), b"\x88": lambda m, _: m.push(True), b"\x89": lambda m, _: m.push(False),
    b"K": lambda m, read: m.stack.append(read(1)[0]),
    b"M": lambda m, read: m.stack.append(int.from_bytes(read(2), "little")),
    b"J": lambda m, read: m.push(_number(read(4), signed=True)),
    b"I": lambda m, _: m.push(_integer(m.line())), b"L": lambda m, _: m.push(int(m.line().rstrip(b"L"))),
    b"\x8a": lambda m, read: m.push(_long(read, 1)), b"\x8b": lambda m, read: m.push(_long(read, 4)),
    b"F": lambda m, _: m.push(float(m.line())), b"G": lambda m, read: m.push(struct.unpack(">d", read(8))[0]),
    # strings of Python 2, text, bytes
    b"S": lambda m, _: m.push(_quoted(m.line())),
    b"U": lambda m, read: m.stack.append(read(read(1)[0]).decode("latin1")),
    b"T": lambda m, read: m.push(_counted(read, 4).decode("latin1")),
    b"V": lambda m, _: m.push(m.line().decode("raw-unicode-escape")),
    b"\x8c": lambda m, read: m.push(_text(_counted(read, 1))),
    b"X": lambda m, read: m.push(_text(_counted(read, 4))),
    b"\x8d": lambda m, read: m.push(_text(_counted(read, 8))),
    b"C": lambda m, read: m.push(_counted(read, 1)), b"B": lambda m, read: m.push(_counted(read, 4)),
    b"\x8e": lambda m, read: m.push(_counted(read, 8)),
    b"\x96": lambda m, read: m.push(bytearray(_counted(read, 8))),
    # containers
    b"]": lambda m, _: m.push([]), b"l": lambda m, _: m.push(m.since_mark()),
    b"a": lambda m, _: m.extend(m.last(1)), b"e": lambda m, _: m.extend(m.since_mark()),
    b")": lambda m, _: m.push(()), b"t": lambda m, _: m.push(tuple(m.since_mark())),
    b"\x85": lambda m, _: m.push(m.last(1)), b"\x86": lambda m, _: m.push(m.last(2)),
    b"\x87": lambda m, _: m.push(m.last(3)),
    b"}": lambda m, _: m.push({}), b"d": lambda m, _: m.make_dictionary(),
    b"s": lambda m, _: m.set_items(list(m.last(2))), b"u": lambda m, _: m.set_items(m.since_mark()),
    b"\x8f": lambda m, _: m.push(set()), b"\x90": lambda m, _: m.add(m.since_mark()),
    b"\x91": lambda m, _: m.make_frozenset(),
    # the memo
    b"q": lambda m, read: m.put(read(1)[0]), b"r": lambda m, read: m.put(int.from_bytes(read(4), "little")),
    b"p": lambda m, _: m.put(int(m.line())), b"\x94": lambda m, _: m.put(len(m.memo)),
    b"h": lambda m, read: m.push(m.memo[read(1)[0]]), b"j": lambda m, read: m.push(m.memo[_number(read(4))]),
    b"g": lambda m, _: m.push(m.memo[int(m.line())]),
    # names, calls and states
    b"c": lambda m, _: m.find(m.line().decode(), m.line().decode()), b"\x93": lambda m, _: m.find(*m.last(2)),
    b"R": lambda m, _: m.call(), b"b": lambda m, _: m.build(),
}  # fmt: skip
"""What each operation does. One that is not here does not happen."""

_CLASS = "it asks for an object of a class"
_ELSEWHERE = "it asks for an object of another program"
REFUSED: dict[bytes, str] = {
    b"i": _CLASS, b"o": _CLASS, b"\x81": _CLASS, b"\x92": _CLASS,
    b"P": _ELSEWHERE, b"Q": _ELSEWHERE, b"\x97": _ELSEWHERE, b"\x98": _ELSEWHERE,
}  # fmt: skip
"""Operations of other pickles, never carried out. Those of the extension registry are not even known."""


def load(file: BinaryIO, name: str) -> Any:
    """Load a pickle; nothing in it can run. Byte strings of Python 2 are read as latin1.

    Args:
        file: The open pickle.
        name: The name of the file in messages.

    Raises:
        UsageError: The pickle asks for more than arrays and plain containers, or is damaged.
    """
    try:
        return _Machine(file).load()
    except RefusedError as error:
        raise UsageError(
            f"{name}: refused, {error}; only arrays and plain containers are read from pickles"
        ) from error
    except MemoryError as error:
        raise UsageError(f"{name}: does not fit in memory") from error
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle can raise whatever its bytes happen to ask for
        said = " ".join(ascii(f"{type(error).__name__}: {error}")[1:-1].split())
        raise UsageError(f"{name}: no whole pickle ({said:.200}); get it again") from error


def is_pickle(head: bytes) -> bool:
    """Tell whether a file that begins with these bytes may be a pickle of a dictionary."""
    return (head[:1] == b"\x80" and 2 <= (head[1] if len(head) > 1 else 0) <= 5) or head.startswith(
        (b"(dp", b"(d", b"}q")
    )
