"""The harness: methods and experiments as data, runs, records and reports; `load_rule` and `read_records`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalearn_benchmarks.artifacts.loading import load_rule as load_rule
    from metalearn_benchmarks.records.frames import read_records as read_records

__all__ = ["load_rule", "read_records"]


def __getattr__(name: str) -> Any:
    # only when it is used: reading records needs no torch
    if name == "load_rule":
        from metalearn_benchmarks.artifacts.loading import load_rule

        return load_rule
    if name == "read_records":
        from metalearn_benchmarks.records.frames import read_records

        return read_records
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
