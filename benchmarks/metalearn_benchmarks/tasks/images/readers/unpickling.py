"""Safe unpickling of files from strangers: arrays and plain containers load, and nothing else does."""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

from metalearn_core.errors import UsageError


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as Python 3 writes them for Python 2: in latin1; any other encoding is not needed."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return codecs.encode(text, "latin1")


def _no_bytes() -> bytes:
    """How Python 3 writes b"" for Python 2."""
    return b""


_EMPTY = np.zeros(0)
ARRAYS: dict[str, Any] = {
    "_reconstruct": _EMPTY.__reduce_ex__(2)[0],
    "scalar": np.uint8(0).__reduce_ex__(2)[0],
}
BUFFERS: dict[str, Any] = {"_frombuffer": _EMPTY.__reduce_ex__(5)[0]}
"""What NumPy itself writes into pickles."""
BUILTINS: dict[str, Any] = {"bytes": _no_bytes, "set": set, "frozenset": frozenset}
ALLOWED: dict[str, dict[str, Any]] = {
    "numpy": {"ndarray": np.ndarray, "dtype": np.dtype},
    "numpy.core.multiarray": ARRAYS,
    "numpy._core.multiarray": ARRAYS,
    "numpy.core.numeric": BUFFERS,
    "numpy._core.numeric": BUFFERS,
    "collections": {"OrderedDict": OrderedDict},
    "_codecs": {"encode": _encode},
    "__builtin__": BUILTINS,
    "builtins": BUILTINS,
}
"""Where NumPy keeps them before and since version 2; a name that is not here is never looked up."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """One of `ALLOWED`."""
        try:
            return ALLOWED[module][name]
        except KeyError as error:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from error

    def persistent_load(self, pid: Any) -> Any:
        """Nothing may be asked of this program."""
        raise pickle.UnpicklingError("it asks for an object of another program")


def load(file: BinaryIO, name: str) -> Any:
    """Load a pickle; nothing in it can run. Byte strings of Python 2 are read as latin1.

    Args:
        file: The open pickle.
        name: The name of the file in messages.

    Raises:
        UsageError: The pickle asks for more than arrays and plain containers, or is damaged.
    """
    try:
        return _Restricted(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        if "asks for" in str(error):
            raise UsageError(
                f"{name}: refused, {error}; only arrays and plain containers are read from pickles"
            ) from error
        raise UsageError(f"{name}: no whole pickle ({error}); get it again") from error
    except MemoryError as error:
        raise UsageError(f"{name}: does not fit in memory") from error
    except Exception as error:  # a damaged pickle can raise whatever its bytes happen to ask for
        raise UsageError(
            f"{name}: no whole pickle ({type(error).__name__}: {error}); get it again"
        ) from error


def is_pickle(head: bytes) -> bool:
    """Tell whether a file that begins with these bytes may be a pickle of a dictionary."""
    return (head[:1] == b"\x80" and 2 <= (head[1] if len(head) > 1 else 0) <= 5) or head.startswith(
        (b"(dp", b"(d", b"}q")
    )
