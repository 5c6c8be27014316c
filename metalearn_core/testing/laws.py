"""The laws of update rules: what the two loops rely on, each as one small function.

A law takes `make_rule(layout) -> UpdateRule` and raises AssertionError where the rule breaks it, with
a message that says what to change. It returns None, or why there was nothing to check.
"""

from __future__ import annotations

from metalearn_core.testing import gradient_laws, loop_laws, update_laws
from metalearn_core.testing.law_problems import Law, MakeRule

__all__ = ["LAWS", "Law", "MakeRule"]

LAWS: dict[str, Law] = {
    "structure": update_laws.law_structure,
    "declares": update_laws.law_declares,
    "no-writes": update_laws.law_no_writes,
    "deterministic": update_laws.law_deterministic,
    "meta-gradients": gradient_laws.law_meta_gradients,
    "zero-steps": loop_laws.law_zero_steps,
    "precision": loop_laws.law_precision,
    "batch": loop_laws.law_batch,
    "steps": loop_laws.law_steps,
    "coordinatewise": update_laws.law_coordinatewise,
    "elementwise": update_laws.law_elementwise,
    "state-dict": update_laws.law_state_dict,
    "order": gradient_laws.law_order,
    "unrolled": gradient_laws.law_unrolled,
    "finite-differences": gradient_laws.law_finite_differences,
    "extremes": update_laws.law_extremes,
    "memory": loop_laws.law_memory,
    "starts-as-descent": update_laws.law_starts_as_descent,
}
"""Every law by its name."""
