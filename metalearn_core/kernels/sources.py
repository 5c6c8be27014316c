"""C++ sources, compiled where and when they are first needed, and kept on disk."""

from __future__ import annotations

import ctypes
import functools
import re
from importlib import resources


@functools.cache
def loaded(name: str, package: str | None = None) -> ctypes.CDLL:
    """The library made of a source, of this folder or of a package. Raises what the compiler raises."""
    from torch._inductor.codecache import CppCodeCache  # it takes time to load

    library: ctypes.CDLL = CppCodeCache.load(_source(name, package or __package__))
    return library


def _source(name: str, package: str) -> str:
    """A source with what it includes of this folder: torch compiles one text, in a folder of its own."""
    text = resources.files(package).joinpath(name).read_text()
    return re.sub(
        r'^#include "(\w+\.h)"$', lambda include: _source(include[1], package), text, flags=re.MULTILINE
    )
