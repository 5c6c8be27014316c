"""What every peer is."""

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
        parameters: θ⁰ and φ, as many arrays as the peer likes; torch's are read anew at every call, so
            that an optimiser may change them in place.
        gradient: from a meta-batch to the mean query loss, then its gradient for each of `parameters`.
        taken: a meta-batch in the peer's own arrays, which is what `gradient` is given.
    """

    parameters: list[Any]
    gradient: Callable[[Any], Gradients]
    taken: Callable[[Task], Any] = lambda task: task
