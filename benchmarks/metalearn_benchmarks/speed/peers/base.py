"""The interface of a peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from metalearn_benchmarks.speed.work import Gradients
from metalearn_core import Task


@attrs.frozen(eq=False)
class Peer:
    """One way to compute the meta-gradient of some work.

    Args:
        parameters: θ⁰ and φ, in as many arrays as the peer likes. Torch tensors are read anew at every
            call, so that an optimiser may change them in place.
        gradient: Maps a converted meta-batch to the mean query loss, then its gradient for each of
            `parameters`.
        convert: Turns a meta-batch into the peer's own arrays.
    """

    parameters: list[Any]
    gradient: Callable[[Any], Gradients]
    convert: Callable[[Task], Any] = lambda task: task
