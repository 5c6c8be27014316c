"""How many outer steps are taken in one call: until something else is due, and not for long."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from metalearn_core.training.seed_run import SeedRun

CALL_SECONDS = 0.1
"""How long one call may take: observers are told after it, and a stop is heard."""
MOST_TASKS = 5_000
"""Tasks that are laid ready for one call at most."""


@attrs.define
class Pace:
    """Doubles the steps of a call while calls are short.

    Args:
        count: how many steps the next call takes, were nothing else due.
    """

    count: int = 1

    def took(self, count: int, seconds: float, until_saved: float) -> None:
        """Learn from a call of so many steps; `until_saved`: seconds until a checkpoint is due."""
        fitting = count * min(CALL_SECONDS, until_saved) / max(seconds, 1e-9)
        self.count = max(1, min(2 * count, int(fitting)))

    def steps(self, active: Sequence[SeedRun], seeds: Sequence[SeedRun]) -> int:
        """Steps of the next call: none of them passes a validation, the end, or where another seed stands."""
        trained = active[0].trained
        settings, position = trained.settings, trained.position
        ahead = [seed for seed in seeds if not seed.idle and seed.trained.position > position]
        if ahead or position + 2 * settings.meta_batch > settings.tasks:
            return 1
        if any(seed.asks_gradient for seed in active):
            return 1
        interval, size = settings.validation_interval, settings.meta_batch
        due = (position // interval + 1) * interval
        until_due, until_end = -(-(due - position) // size), (settings.tasks - position) // size
        return max(1, min(self.count, until_due, until_end, MOST_TASKS // size))
