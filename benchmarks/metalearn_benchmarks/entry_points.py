"""What says that it is a plugin, by its metadata alone: nothing is imported."""

from __future__ import annotations

import importlib.metadata

GROUP = "metalearn"


def installed() -> set[tuple[str, importlib.metadata.Distribution]]:
    """Every plugin's name, and the distribution that brings it."""
    points = importlib.metadata.entry_points(group=GROUP)
    return {(point.name, point.dist) for point in points if point.dist is not None}
