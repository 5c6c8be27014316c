"""The C++ sources of this folder, compiled where and when they are first needed, and kept on disk."""

from __future__ import annotations

import ctypes
import functools
from importlib import resources


@functools.cache
def loaded(name: str) -> ctypes.CDLL:
    """The library made of a source. Raises what the compiler raises."""
    from torch._inductor.codecache import CppCodeCache  # it takes time to load

    library: ctypes.CDLL = CppCodeCache.load(resources.files(__package__).joinpath(name).read_text())
    return library
