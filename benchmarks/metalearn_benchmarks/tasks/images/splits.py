"""Split lists: which class of a dataset is in which split, as published. They are data, in `split_lists/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import attrs

from metalearn_benchmarks.tasks.images.store.manifest import SPLITS


@attrs.frozen(slots=False)
class SplitList:
    """A published partition of the classes of a dataset.

    Args:
        name: The name on the command line.
        title: Who published it, and how many classes are in each split.
        source: Where it was published.
        parts: The names of the classes of each split.
        turns: How many classes one class on disk becomes, each turned by another quarter.
    """

    name: str
    title: str
    source: str
    parts: Mapping[str, tuple[str, ...]]
    turns: int = 1

    @cached_property
    def on_disk(self) -> Mapping[str, str]:
        """The split of each class that must be on disk."""
        return {name: part for part in SPLITS for name in self.parts[part]}

    @property
    def classes(self) -> Mapping[str, str]:
        """The split of each class of the prepared images."""
        if self.turns == 1:
            return self.on_disk
        return {
            f"{name}/rot{90 * turn:03}": part
            for name, part in self.on_disk.items()
            for turn in range(self.turns)
        }

    @staticmethod
    def parse_class_name(prepared: str) -> tuple[str, int]:
        """Split the name of a prepared class into the class on disk and its number of quarter turns."""
        name, _, degrees = prepared.rpartition("/rot")
        return (name, int(degrees) // 90) if name else (prepared, 0)

    @property
    def counts(self) -> str:
        """The numbers of classes for training, validation and test, such as `64/16/20`."""
        return "/".join(str(self.turns * len(self.parts[part])) for part in SPLITS)


@cache
def split_lists(dataset: str) -> Mapping[str, SplitList]:
    """Return the split lists of a dataset by name, its default first."""
    path = files("metalearn_benchmarks.tasks.images") / "split_lists" / f"{dataset}.json"
    return {
        name: SplitList(
            name, plain["title"], plain["source"],
            {part: _names(plain[part]) for part in SPLITS}, plain.get("turns", 1),
        )
        for name, plain in json.loads(path.read_text(encoding="utf-8")).items()
    }  # fmt: skip


def _names(plain: Any) -> tuple[str, ...]:
    """Class names; of characters, the first and the last number in each alphabet stand in the file."""
    if isinstance(plain, list):
        return tuple(plain)
    return tuple(
        f"{alphabet}/character{number:02}"
        for alphabet, (first, last) in plain.items()
        for number in range(first, last + 1)
    )
