"""The machine: what is measured of it, and that nothing needs modules that only Unix has."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from metalearn_benchmarks.host import machine

EVERY_MODULE = """
import importlib, pkgutil, sys
import psutil  # on Linux it imports `resource` itself, on Windows not

sys.modules["fcntl"] = sys.modules["resource"] = None
for name in ("cli", "host", "runs", "tasks"):
    package = importlib.import_module(f"metalearn_benchmarks.{name}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
import metalearn_core.training.files
from metalearn_benchmarks.host.machine import cores, free_memory, peak_memory

assert cores() >= 1
assert free_memory() > 0
assert peak_memory() > 0
"""


def test_no_module_needs_what_only_unix_has():
    """Where they are hidden filelock warns that only soft locks are left; Windows has locks of its own."""
    command = [sys.executable, "-W", "ignore", "-c", EVERY_MODULE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert {
        "metalearn_benchmarks.cli.app", "metalearn_benchmarks.host.locks", "metalearn_benchmarks.runs.job",
        "metalearn_benchmarks.tasks.images.store.writer",
    } <= modules  # fmt: skip


@pytest.mark.parametrize("hidden", [(), ("resource",)])
def test_the_peak_is_known_without_the_kernels_account(monkeypatch, hidden):
    def no_such_file(field):
        raise FileNotFoundError(field)

    exact = machine.peak_memory()
    monkeypatch.setattr(machine, "process_status", no_such_file)
    for name in hidden:
        monkeypatch.setattr(machine, name, None)
    assert exact / 4 < machine.peak_memory() < 4 * exact


def test_free_memory_is_part_of_what_there_is():
    assert 2**26 < machine.free_memory() < psutil.virtual_memory().total
