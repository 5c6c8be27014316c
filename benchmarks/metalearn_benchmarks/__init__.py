"""The harness: methods and experiments as data, runs, records and reports.

In Python it has `load_rule`, `read_records`, and families of tasks for what a program has in memory.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalearn_benchmarks.artifacts.loading import load_rule as load_rule
    from metalearn_benchmarks.records.frames import read_records as read_records
    from metalearn_benchmarks.tasks.in_memory import ClassFamily as ClassFamily
    from metalearn_benchmarks.tasks.in_memory import RegressionFamily as RegressionFamily

HOMES = {
    "ClassFamily": "tasks.in_memory",
    "RegressionFamily": "tasks.in_memory",
    "load_rule": "artifacts.loading",
    "read_records": "records.frames",
}
"""Where each name is defined."""
__all__ = ["ClassFamily", "RegressionFamily", "load_rule", "read_records"]


def __getattr__(name: str) -> Any:
    # only when it is used: reading records needs no torch
    if name in HOMES:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
