"""The globals that a pickle of images may ask for, each with a function of ours in its place.

No class and no function of Python or NumPy is ever handed to a pickle. What it gets for a name of this table
is a `Global`, which nothing but this reader calls. All that it makes is numbers, arrays of them and plain
containers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")
"""NumPy's codes of the numbers that are read: no objects, no records, no text, no dates."""
ORDERS = ("<", ">", "|", "=")
MOST_AXES = 8
FREE_BYTES = 1 << 20
"""Bytes that arrays may have beyond those that were read from the file."""


class RefusedError(Exception):
    """A pickle that asks for something that is not read."""


@attrs.define(eq=False)
class NumberType:
    """What stands for a NumPy dtype: a kind of number, and the byte order that the pickle sets."""

    code: str
    order: str = "|"

    def build(self, state: object) -> None:
        """Set the byte order. A dtype with fields, with a shape or with metadata is refused."""
        if not isinstance(state, tuple) or not 5 <= len(state) <= 8:
            raise RefusedError("it asks for a dtype that is no plain number")
        version, order, *structure = state
        if type(version) is not int or order not in ORDERS or any(part is not None for part in structure[:3]):
            raise RefusedError("it asks for a dtype that is no plain number")
        if any(type(size) is not int for size in structure[3:]):
            raise RefusedError("it asks for a dtype whose size is no number")
        self.order = order

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


@attrs.define(eq=False)
class Workshop:
    """Makes the objects of one pickle.

    Args:
        bytes_read: Returns how many bytes of the file were read so far. Arrays have no more than these
            together, however often the pickle points at the same ones.
    """

    bytes_read: Callable[[], int]
    _made: int = 0
    _empty: dict[int, Array] = attrs.field(factory=dict)

    def count(self, size: int) -> None:
        """Count bytes that are made; refuse more than the file can hold."""
        self._made += size
        if self._made > self.bytes_read() + FREE_BYTES:
            raise RefusedError("it asks for more bytes of arrays than are in the file")

    def raw(self, given: object, size: int) -> bytes | bytearray:
        """Return the bytes of an array, which must be exactly so many. Python 2's come as latin1 text."""
        if not isinstance(given, bytes | bytearray | str) or len(given) != size:
            raise RefusedError(f"it asks for an array of {size} bytes, and does not have these")
        self.count(size)
        return given.encode("latin1") if isinstance(given, str) else given

    def empty(self) -> Array:
        """Return an array that `fill` fills, once."""
        made = np.empty(0, np.uint8)
        self._empty[id(made)] = made
        return made

    def fill(self, array: Array, state: object) -> None:
        """Give an array of `empty` its shape and its numbers, as NumPy's pickles have them."""
        if self._empty.pop(id(array), None) is None:
            raise RefusedError("it asks for a change of an array that is whole")
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise RefusedError("it asks for an array that is none")
        shape, kind, fortran, given = state[-4:]
        dtype, size = _size_of(shape, kind)
        if fortran not in (0, 1):
            raise RefusedError("it asks for an array in an order that is not known")
        whole: Any = (1, shape, dtype, bool(fortran), bytes(self.raw(given, size)))
        array.__setstate__(whole)


def _size_of(shape: object, kind: object) -> tuple[np.dtype[Any], int]:
    """The dtype of an array, and the number of its bytes."""
    if not isinstance(kind, NumberType):
        raise RefusedError("it asks for an array of what is no number")
    if not isinstance(shape, tuple) or len(shape) > MOST_AXES:
        raise RefusedError("it asks for an array whose shape is none")
    if any(type(axis) is not int or not 0 <= axis < 1 << 40 for axis in shape):
        raise RefusedError("it asks for an array whose shape is none")
    dtype = kind.dtype
    return dtype, math.prod(shape) * dtype.itemsize


def is_key(key: object) -> bool:
    """Tell whether an object may be a key: a number, a text, or a flat tuple of these.

    Python's hash of a tuple in a tuple in a tuple ... overflows the stack of the process.
    """
    plain = (str, bytes, int, float, np.generic, type(None))
    return isinstance(key, plain) or (isinstance(key, tuple) and all(isinstance(one, plain) for one in key))


def require_keys(keys: Iterable[object]) -> None:
    """Refuse anything that must not be a key of a dictionary or a member of a set."""
    if not all(map(is_key, keys)):
        raise RefusedError("it asks for a key that is neither a number nor a text")


def _dtype(_: Workshop, code: object, align: object = False, copy: object = False) -> NumberType:
    if not isinstance(code, str) or not NUMBERS.fullmatch(code):
        raise RefusedError(f"it asks for numbers of the type {_shown(code)}")
    return NumberType(code)


def _reconstruct(shop: Workshop, which: object, shape: object, code: object) -> Array:
    if which is not NDARRAY:
        raise RefusedError("it asks for an array of another class than NumPy's own")
    return shop.empty()


def _from_buffer(
    shop: Workshop, given: object, kind: object, shape: object, order: object, axes: object = None
) -> Array:
    """Protocol 5's arrays; `axes` are those of an array that is neither in C's nor in Fortran's order."""
    dtype, size = _size_of(shape, kind)
    if order not in ("C", "F", "K") or (order == "K" and not isinstance(axes, tuple)):
        raise RefusedError("it asks for an array in an order that is not known")
    assert isinstance(shape, tuple)  # `_size_of` has looked
    flat = np.frombuffer(shop.raw(given, size), dtype) if size else np.empty(0, dtype)
    if order != "K":
        return flat.reshape(shape, order="F" if order == "F" else "C")
    assert isinstance(axes, tuple)
    if sorted(axes) != list(range(len(shape))):
        raise RefusedError("it asks for an array in an order that is not known")
    return flat.reshape(shape).transpose(axes)


def _scalar(shop: Workshop, kind: object, given: object) -> Any:
    dtype, size = _size_of((), kind)
    return np.frombuffer(shop.raw(given, size), dtype)[0]


def _encode(shop: Workshop, text: object, encoding: object) -> bytes:
    """Bytes, as Python 3 writes them for Python 2: in latin1; any other encoding is not needed."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise RefusedError(f"it asks for the encoding {_shown(encoding)}")
    shop.count(len(text))
    return text.encode("latin1")


def _no_bytes(_: Workshop) -> bytes:
    """How Python 3 writes b"" for Python 2."""
    return b""


def _pairs(_: Workshop, pairs: object = ()) -> dict[Any, Any]:
    """An OrderedDict, which is a dictionary; Python 2 gives it its pairs as lists."""
    found = [tuple(pair) for pair in _listed(pairs)]
    require_keys(key for key, _ in found)
    return dict(found)


def _default_dict(_: Workshop, factory: object = None) -> dict[Any, Any]:
    """A defaultdict, which is a dictionary: what it would make for a key that is missing is not asked."""
    if factory is not None and not isinstance(factory, Global):
        raise RefusedError("it asks for a defaultdict whose factory is no type")
    return {}


def _set(_: Workshop, members: object = ()) -> set[Any]:
    found = _listed(members)
    require_keys(found)
    return set(found)


def _frozenset(shop: Workshop, members: object = ()) -> frozenset[Any]:
    return frozenset(_set(shop, members))


def _listed(members: object) -> list[Any]:
    if not isinstance(members, list | tuple):
        raise RefusedError("it asks for a container of what is neither a list nor a tuple")
    return list(members)


def _nothing(_: Workshop, *arguments: object) -> Any:
    raise RefusedError("it asks for a call of a type that is only named")


def _shown(what: object) -> str:
    return ascii(what)[:60] if isinstance(what, str | bytes) else f"a {type(what).__name__}"


@attrs.frozen(eq=False)
class Global:
    """What a pickle gets for a name.

    Args:
        make: Makes the object that a call of that name makes; called with the workshop and the arguments.
    """

    make: Callable[..., Any]


NDARRAY = Global(_nothing)
"""It is only named: `_reconstruct` is given it."""
ARRAYS = {"_reconstruct": Global(_reconstruct), "scalar": Global(_scalar)}
BUFFERS = {"_frombuffer": Global(_from_buffer)}
TYPES = {name: Global(_nothing) for name in ("list", "dict", "int", "float", "bool", "str", "tuple")}
"""They are only named: as factories of a defaultdict."""
BUILTINS = TYPES | {"bytes": Global(_no_bytes), "set": Global(_set), "frozenset": Global(_frozenset)}
ADMITTED: Mapping[str, Mapping[str, Global]] = {
    "numpy": {"ndarray": NDARRAY, "dtype": Global(_dtype)},
    "numpy.core.multiarray": ARRAYS,
    "numpy._core.multiarray": ARRAYS,
    "numpy.core.numeric": BUFFERS,
    "numpy._core.numeric": BUFFERS,
    "collections": {"OrderedDict": Global(_pairs), "defaultdict": Global(_default_dict)},
    "_codecs": {"encode": Global(_encode)},
    "__builtin__": BUILTINS,
    "builtins": BUILTINS,
}
"""Where NumPy keeps them before and since version 2. A name that is not here is never looked up."""


def find_global(module: object, name: object) -> Global:
    """Return what stands for a name.

    Raises:
        RefusedError: The name is not admitted.
    """
    found = ADMITTED.get(module, {}).get(name) if isinstance(module, str) and isinstance(name, str) else None
    if found is None:
        raise RefusedError(f"it asks for {ascii(f'{module}.{name}')[1:-1]:.100}")
    return found
