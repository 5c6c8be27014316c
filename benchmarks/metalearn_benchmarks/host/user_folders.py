"""The user's folders for what the harness keeps: a cache, and data.

The variables XDG_CACHE_HOME and XDG_DATA_HOME count on every system. Where they are not set, the folder is
the usual one of the system.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

NAME = "metalearn"


def cache_folder() -> Path:
    """Return the folder of what can be computed again: by default `~/.cache/metalearn` on Linux."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base, NAME) if base else platformdirs.user_cache_path(NAME, appauthor=False)


def data_folder() -> Path:
    """Return the folder of what should stay: by default `~/.local/share/metalearn` on Linux."""
    base = os.environ.get("XDG_DATA_HOME")
    return Path(base, NAME) if base else platformdirs.user_data_path(NAME, appauthor=False)
