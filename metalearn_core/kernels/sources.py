"""C++ sources, compiled where and when they are first needed, and kept on disk."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Sequence
from importlib import resources
from itertools import chain
from typing import Any

import torch
from torch import Tensor


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


def call(source: str, name: str, shape: Sequence[int], *tensors: Tensor) -> None:
    """Call a function of a source of this folder, made for float and double: sizes, then pointers."""
    kind = {torch.float32: "float", torch.float64: "double"}[tensors[0].dtype]
    function = getattr(loaded(source), f"{name}_{kind}")
    function((ctypes.c_int64 * len(shape))(*shape), *(ctypes.c_void_p(t.data_ptr()) for t in tensors))


def for_programs(name: str) -> None:
    """Have compiled programs find the functions of a source of this folder, by their names."""
    ctypes.CDLL(loaded(name)._name, mode=ctypes.RTLD_GLOBAL)


class Shims(dict[Any, list[str]]):
    """The C functions of operators, as Inductor takes them; alike in every process, for its cache on disk."""

    def __reduce__(self) -> tuple[Any, ...]:
        return repr, (sorted(chain.from_iterable(self.values())),)

    def __deepcopy__(self, memo: object) -> Shims:
        return self
