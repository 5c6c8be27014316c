"""C++ sources and programs share their precompiled headers, and what is compiled ahead is what is called."""

import platform
import shutil
import threading
from pathlib import Path

import pytest
import torch
from torch._inductor import config, cpu_vec_isa
from torch._inductor.codecache import CppWrapperCodeCache

from metalearn_core.kernels import sources

if not shutil.which("g++"):
    pytest.skip("needs g++, a C++ compiler", allow_module_level=True)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86's vectors")
def test_vectors_are_those_of_the_processor_without_a_test_program(monkeypatch):
    compiled = []
    monkeypatch.setattr(
        cpu_vec_isa.VecISA, "check_build", lambda _, code: bool(compiled.append(code)) or True
    )
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    try:
        with sources.quick_compiler():
            found = str(cpu_vec_isa.pick_vec_isa())
    finally:
        cpu_vec_isa.valid_vec_isa_list.cache_clear()
    assert torch.backends.cpu.get_cpu_capability().lower() in found
    assert cpu_vec_isa.VecISA._avx_code not in compiled


def test_programs_and_sources_precompile_the_same_headers_and_torch_its_own_again():
    before, probe = CppWrapperCodeCache._get_uncompiled_header("cpu"), config.cpp.vec_isa_ok
    with sources.quick_compiler():
        header = CppWrapperCodeCache._get_uncompiled_header("cpu")
    assert CppWrapperCodeCache._get_uncompiled_header("cpu") == before
    assert config.cpp.vec_isa_ok == probe
    assert sources._code_cache()._get_uncompiled_header("cpu") == header
    assert sources._code_cache().cpp_compile_command_flags == CppWrapperCodeCache.cpp_compile_command_flags
    include = Path(torch.__file__).parent / "include"
    lines = f"#include <{header}>".splitlines()  # as torch writes it
    assert len(lines) > 1
    for line in lines:
        assert (include / line.removeprefix("#include <").removesuffix(">")).is_file()


def test_a_source_that_is_loaded_meanwhile_leaves_a_programs_headers_alone():
    sources.loaded.cache_clear()
    with sources.quick_compiler():
        header = CppWrapperCodeCache._get_uncompiled_header("cpu")
        thread = threading.Thread(target=sources.loaded, args=("products.cpp",))
        thread.start()
        thread.join()
        assert CppWrapperCodeCache._get_uncompiled_header("cpu") == header


def test_sources_are_compiled_ahead_in_order_on_a_thread_of_their_own(monkeypatch):
    asked, done = [], threading.Event()

    def loaded(name, package):
        asked.append((name, package, threading.current_thread()))
        if name == "last.cpp":
            done.set()
        raise RuntimeError("one that cannot be compiled holds up no other")

    monkeypatch.setattr(sources, "loaded", loaded)
    sources.begin.__wrapped__(("first.cpp", "a"), ("last.cpp", "b"))
    assert done.wait(60)
    assert [(name, package) for name, package, _ in asked] == [("first.cpp", "a"), ("last.cpp", "b")]
    assert all(thread is not threading.main_thread() for *_, thread in asked)
