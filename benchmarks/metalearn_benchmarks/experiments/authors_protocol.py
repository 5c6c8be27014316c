"""The changes that `--protocol authors` makes to a method. Imports no torch.

The authors' program differs from their text in clipping, in the sum over tasks, in the history of a
feed-forward rule and in the scale of the LSTM. This file reproduces these differences. It leaves out what
their program does on images only, and what would need another sampler. The report lists these deviations.
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from metalearn_benchmarks.experiments.method import Component, Method
from metalearn_core.errors import UsageError

CLAMP = {"by": "value", "limit": 10.0}
"""The clipping of gradients in the authors' program."""


def under_authors_protocol(method: Method, family: Component) -> Method:
    """Return the method as the authors' program runs it; a method of protocol `"paper"` stays as it is.

    The protocol also decides which state is tested: see `runs.evaluation.tested_state`.

    Args:
        method: The row of the results table.
        family: The family of the setting, which says how large a support set is.

    Raises:
        UsageError: The program does not have this rule, or this library cannot do what the program does.
    """
    if method.protocol != "authors":
        return method
    settings: dict[str, Any] = {**method.settings, "outer_loss": "sum"}
    options, title = dict(method.options), f"{method.title}, protocol authors: the authors' program"
    if method.rule in ("gradient-descent", "feed-forward"):
        for key in ("inner_clip", "outer_clip"):
            settings.pop(key, None)
        if "steps" not in settings:
            raise UsageError(f"{title} clips where T > 1: say steps, of the method or in [settings]")
        if isinstance(settings["steps"], int) and settings["steps"] > 1:
            settings |= {"inner_clip": CLAMP, "outer_clip": CLAMP, "outer_clip_scope": "initialisation"}
    elif method.rule == "lstm":
        options["candidate_scale"] = 1 / _support_size(family, title)  # a second mean over the support set
    else:
        raise UsageError(f"{title} has no rule {method.rule!r}; run it without --protocol authors")
    if method.rule == "feed-forward" and options.get("history", "none") != "none":
        if options.get("preprocess", "none") == "log":
            raise UsageError(
                f'{title} with preprocess = "log" averages processed gradients, and cannot average updates at'
                " all; the rule here processes the average, so run it without --protocol authors"
            )
        options["history_timing"] = "program"
    if settings.get("order") == "second" and "loss" in options.get("inputs", ()):
        raise UsageError(
            f"{title} takes the loss for a constant under second order, which cannot be had here; run it with"
            " --order first, or without --protocol authors"
        )
    return attrs.evolve(method, settings=settings, options=options)


def _support_size(family: Component, title: str) -> int:
    """Return the number of support examples: N·k, or k where there are no classes."""
    sizes = [family.options[key] for key in ("support", "ways", "shots") if key in family.options]
    if len(sizes) not in (1, 2) or not all(type(size) is int and size > 0 for size in sizes):
        raise UsageError(
            f"{title} divides by the size of the support set: say support, or ways and shots, in the options"
            f" of [family], got {family.options}"
        )
    return math.prod(sizes)
