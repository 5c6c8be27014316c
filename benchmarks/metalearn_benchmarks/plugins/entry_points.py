"""What says that it is a plugin, by its metadata alone: nothing is imported."""

from __future__ import annotations

import importlib.metadata
import os

GROUP = "metalearn"
LOAD_PLUGINS = "METALEARN_LOAD_PLUGINS"


def installed() -> set[tuple[str, importlib.metadata.Distribution]]:
    """Every plugin's name, and the distribution that brings it."""
    points = importlib.metadata.entry_points(group=GROUP)
    return {(point.name, point.dist) for point in points if point.dist is not None}


def left_out(plugin: str, owner: importlib.metadata.Distribution) -> bool:
    """Whether METALEARN_LOAD_PLUGINS names others, as the registry reads it."""
    wanted = os.environ.get(LOAD_PLUGINS)
    if wanted is None:
        return False
    return not {plugin, owner.metadata["Name"]} & {name.strip() for name in wanted.split(",")}
