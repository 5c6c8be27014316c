"""The laws of update rules: what the two loops rely on, each as one small function.

A law takes `make_rule(layout) -> UpdateRule` and raises AssertionError where the rule breaks it, with
a message that says what to change. It returns None, or why there was nothing to check.
"""

from __future__ import annotations

from metalearn_core.testing.laws import gradients, loop, updates
from metalearn_core.testing.laws.capabilities import (
    law_coordinatewise,
    law_elementwise,
    law_starts_as_descent,
)
from metalearn_core.testing.laws.problems import Law, MakeRule

__all__ = ["LAWS", "Law", "MakeRule"]

LAWS: dict[str, Law] = {
    "structure": updates.law_structure,
    "declares": updates.law_declares,
    "no-writes": updates.law_no_writes,
    "deterministic": updates.law_deterministic,
    "meta-gradients": gradients.law_meta_gradients,
    "zero-steps": loop.law_zero_steps,
    "precision": loop.law_precision,
    "batch": loop.law_batch,
    "steps": loop.law_steps,
    "coordinatewise": law_coordinatewise,
    "elementwise": law_elementwise,
    "state-dict": updates.law_state_dict,
    "order": gradients.law_order,
    "unrolled": gradients.law_unrolled,
    "finite-differences": gradients.law_finite_differences,
    "extremes": updates.law_extremes,
    "memory": loop.law_memory,
    "starts-as-descent": law_starts_as_descent,
}
"""Every law by its name."""
