"""The authors' program in place of the text: what `--protocol authors` makes of a method. No torch.

What their program does on images alone, and what would need another sampler, stays as it is here: the
report's list of deviations says which.
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from metalearn_benchmarks.experiments.method import Component, Method
from metalearn_core.errors import UsageError

CLAMP = {"by": "value", "limit": 10.0}


def under_authors_protocol(method: Method, family: Component) -> Method:
    """A method of protocol `"authors"` with the program's clipping, sum, history and scale.

    Which state is tested follows from the protocol too: see `at_test.tested_state`.

    Raises:
        UsageError: for a rule that the program does not have, and for what it does and this library cannot.
    """
    if method.protocol != "authors":
        return method
    settings: dict[str, Any] = {**method.settings, "outer_loss": "sum"}
    options, told = dict(method.options), f"{method.title}, protocol authors: the authors' program"
    if method.rule in ("gradient-descent", "feed-forward"):
        for key in ("inner_clip", "outer_clip"):
            settings.pop(key, None)
        if "steps" not in settings:
            raise UsageError(f"{told} clips where T > 1: say steps, of the method or in [settings]")
        if isinstance(settings["steps"], int) and settings["steps"] > 1:
            settings |= {"inner_clip": CLAMP, "outer_clip": CLAMP, "outer_clip_scope": "initialisation"}
    elif method.rule == "lstm":
        options["candidate_scale"] = 1 / _support_size(family, told)  # a second mean over the support set
    else:
        raise UsageError(f"{told} has no rule {method.rule!r}; run it without --protocol authors")
    if method.rule == "feed-forward" and options.get("history", "none") != "none":
        options["history_timing"] = "program"
    if settings.get("order") == "second" and "loss" in options.get("inputs", ()):
        raise UsageError(
            f"{told} takes the loss for a constant under second order, which cannot be had here; run it with"
            " --order first, or without --protocol authors"
        )
    return attrs.evolve(method, settings=settings, options=options)


def _support_size(family: Component, told: str) -> int:
    """N·k; of sine waves k."""
    sizes = [family.options[key] for key in ("support", "ways", "shots") if key in family.options]
    if len(sizes) not in (1, 2) or not all(type(size) is int and size > 0 for size in sizes):
        raise UsageError(
            f"{told} divides by the size of the support set: say support, or ways and shots, in the options"
            f" of [family], got {family.options}"
        )
    return math.prod(sizes)
