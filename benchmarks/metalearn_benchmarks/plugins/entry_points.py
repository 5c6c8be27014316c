"""The installed plugins, by their metadata alone: nothing is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import importlib.metadata

GROUP = "metalearn"
LOAD_PLUGINS = "METALEARN_LOAD_PLUGINS"


def installed_plugins() -> set[tuple[str, importlib.metadata.Distribution]]:
    """Return every plugin's name with the distribution that brings it."""
    import importlib.metadata  # slow, and `--help` imports this module

    points = importlib.metadata.entry_points(group=GROUP)
    return {(point.name, point.dist) for point in points if point.dist is not None}


def left_out(plugin: str, owner: importlib.metadata.Distribution) -> bool:
    """Whether METALEARN_LOAD_PLUGINS leaves a plugin out, as the registry reads it.

    Args:
        plugin: Name of the plugin.
        owner: The distribution that brings it.
    """
    wanted = os.environ.get(LOAD_PLUGINS)
    if wanted is None:
        return False
    return not {plugin, owner.metadata["Name"]} & {name.strip() for name in wanted.split(",")}
