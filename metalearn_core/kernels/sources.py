"""C++ sources, compiled where and when they are first needed, and kept on disk."""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from itertools import chain
from typing import Any

import torch
from torch import Tensor

HEADERS = ("torch/csrc/inductor/cpp_wrapper/cpu.h", "torch/csrc/inductor/cpp_prefix.h")
"""What compiled programs include. Left alone, torch precompiles the first and reads the second every time."""
VECTORS = {"cpp.vec_isa_ok": True}
"""Has torch ask the processor which vectors it has, without compiling a program that tries them: a compiler
that reads torch's headers knows them all."""


@contextmanager
def quick_compiler() -> Iterator[None]:
    """Within it, programs for the CPU become the same machine code as without it, after less waiting.

    All their headers are precompiled, once on each machine; these are those of the sources here, too.
    """
    from torch._inductor import config
    from torch._inductor.codecache import CppWrapperCodeCache  # they take time to load

    own = _torchs_header()
    if own is not None:  # another torch may do without
        CppWrapperCodeCache._get_uncompiled_header = classmethod(_header)  # type: ignore[assignment]
    try:
        with config.patch(VECTORS):
            yield
    finally:
        if own is not None:
            CppWrapperCodeCache._get_uncompiled_header = own  # type: ignore[method-assign]


@functools.cache
def _torchs_header() -> Any:
    """The method by which torch chooses a header to precompile; read once, before it is ever replaced."""
    from torch._inductor.codecache import CppWrapperCodeCache

    return CppWrapperCodeCache.__dict__.get("_get_uncompiled_header")


def _header(_: type, device: str) -> str:
    """The header to precompile, as torch writes it: into a line `#include <...>`."""
    return ">\n#include <".join(HEADERS)


@functools.cache
def _code_cache() -> Any:
    """Where sources are compiled as torch compiles programs, so that both have one precompiled header."""
    from torch._inductor.codecache import CppCodeCache, CppWrapperCodeCache  # they take time to load

    inherited = {"cache": {}, "cpp_compile_command_flags": CppWrapperCodeCache.cpp_compile_command_flags}
    return type("Sources", (CppCodeCache,), {**inherited, "_get_uncompiled_header": classmethod(_header)})


@functools.cache
def loaded(name: str, package: str | None = None) -> ctypes.CDLL:
    """The library made of a source, of this folder or of a package. Raises what the compiler raises."""
    from torch._inductor import config  # it takes time to load

    with config.patch(VECTORS):  # no more: this may run while another thread compiles a program
        library: ctypes.CDLL = _code_cache().load(_source(name, package or __package__))
    return library


@functools.cache
def begin(*sources: tuple[str, str]) -> None:
    """Compile sources, each a name and a package, on another core, one after the other; once in a process.

    `loaded` waits for one that has been begun. What goes wrong is raised there, where it can be told.
    """
    _code_cache()  # what is imported by two threads at once may be seen half made

    def compile_all() -> None:
        for name, package in sources:
            with suppress(Exception):
                loaded(name, package)

    threading.Thread(target=compile_all, daemon=True).start()


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
