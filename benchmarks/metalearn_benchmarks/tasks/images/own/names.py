"""The names of a user's own datasets: free ones, that a folder can have and nobody takes for another."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from metalearn_benchmarks.tasks.images.datasets import datasets
from metalearn_benchmarks.tasks.images.store.locations import data_home
from metalearn_benchmarks.tasks.images.store.manifest import MANIFEST
from metalearn_core import task_families
from metalearn_core.errors import UsageError, unknown

ALIKE = 0.8
"""From this likeness on, a name is taken for a known one that is misspelt."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")


def require_own_name(name: str) -> None:
    """Check that a user's own dataset may have a name.

    Raises:
        UsageError: It is no name of a folder, is very like that of a known dataset, or another family has it.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"dataset {name!r:.60}: its name becomes that of a folder and of a family; use letters, digits"
            " and . _ - alone"
        )
    known = datasets()
    if difflib.get_close_matches(name, known, 1, ALIKE):
        raise UsageError(f"{unknown('dataset', name, known)}; for images of your own, choose another name")
    own = own_names()
    families = task_families()
    if name in families and name not in own:
        raise UsageError(
            f"dataset {name!r}: a family of {families[name].distribution} has this name; choose another one"
        )


def own_names() -> Mapping[str, list[int]]:
    """Return the sizes at which each dataset of the user's own is prepared, by its name."""
    published = {
        dataset.prepared_name(split) for dataset in datasets().values() for split in dataset.splits.values()
    }
    found: dict[str, list[int]] = {}
    for manifest in data_home().glob(f"*/*/{MANIFEST}"):
        name, size = manifest.parent.parent.name, manifest.parent.name
        if name not in published and NAME.fullmatch(name) and size.isdecimal() and _is_own(manifest):
            found.setdefault(name, []).append(int(size))
    return {name: sorted(sizes) for name, sizes in sorted(found.items())}


def _is_own(manifest: Path) -> bool:
    """Whether a store was made of a user's own images; those that make themselves are families already."""
    try:
        with open(manifest, encoding="utf-8", errors="replace") as file:
            return '"split seed"' in file.read()
    except OSError:
        return False
