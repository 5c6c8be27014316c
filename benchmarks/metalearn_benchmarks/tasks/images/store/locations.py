"""Where prepared datasets lie on disk."""

from __future__ import annotations

import os
from pathlib import Path

from metalearn_benchmarks.host.user_folders import data_folder


def data_home() -> Path:
    """Return the folder of prepared datasets: `METALEARN_DATA`, or `metalearn` in the user's data folder."""
    told = os.environ.get("METALEARN_DATA")
    if told:
        return Path(told)
    return data_folder()


def store_folder(name: str, size: int) -> Path:
    """Return the folder of a prepared dataset at a size, in pixels."""
    return data_home() / name / str(size)
