"""The harness: methods and experiments as data, runs, records and reports; and `load_rule`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metalearn_benchmarks.artifacts.loading import load_rule as load_rule

__all__ = ["load_rule"]


def __getattr__(name: str) -> Any:
    # only when it is used: reading records needs no torch
    if name == "load_rule":
        from metalearn_benchmarks.artifacts.loading import load_rule

        return load_rule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
