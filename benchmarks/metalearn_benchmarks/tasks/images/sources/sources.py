"""What a reader finds: which class has which images, and how to come by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt

from metalearn_benchmarks.tasks.images.sources import containers
from metalearn_benchmarks.tasks.images.sources.containers import Files

Image = bytes | npt.NDArray[np.uint8]
"""An image's file, or its pixels, `[height, width, 3]`."""


class Source(Protocol):
    """A copy of a dataset."""

    @property
    def form(self) -> str:
        """What it is, in words."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Class to images, of the classes that are wanted."""

    @property
    def parts(self) -> Mapping[str, frozenset[str]]:
        """Where the copy itself says a class is (a list's, a folder's or a pickle's name), to its classes."""

    @property
    def lists(self) -> Sequence[str]:
        """Files that were read whole to know all this."""

    @property
    def notes(self) -> Sequence[str]:
        """What people should know about it."""

    def images(self, which: str) -> Iterator[tuple[str, Image]]:
        """Those of a class, in order, each with its name for people."""

    def place(self, which: str) -> int:
        """Where a class lies: reading classes in this order is fastest."""


@attrs.frozen(eq=False)
class ImageFiles:
    """Images that are files; `members`: class to names, in the order of their rows."""

    files: Files
    form: str
    members: Mapping[str, Sequence[str]]
    parts: Mapping[str, frozenset[str]]
    lists: Sequence[str] = ()
    notes: Sequence[str] = ()
    _places: Mapping[str, int] = attrs.field(init=False)

    @_places.default
    def _find_places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self.files.names)}

    @property
    def counts(self) -> Mapping[str, int]:
        return {which: len(names) for which, names in self.members.items()}

    def images(self, which: str) -> Iterator[tuple[str, Image]]:
        names = self.members[which]
        data = {
            name: containers.read(self.files, name) for name in sorted(names, key=self._places.__getitem__)
        }
        for name in names:
            yield self.files.where(name), data[name]

    def place(self, which: str) -> int:
        return min(self._places[name] for name in self.members[which])


class Arrays(Protocol):
    """Pixels of a file, `[images, height, width, 3]`."""

    def __call__(self, name: str) -> npt.NDArray[np.uint8]: ...


@attrs.frozen(eq=False)
class ImageArrays:
    """Images that lie in arrays; `rows`: class to (file, rows of its array), in order."""

    where: Callable[[str], str]
    form: str
    rows: Mapping[str, Sequence[tuple[str, Sequence[int]]]]
    parts: Mapping[str, frozenset[str]]
    lists: Sequence[str]
    load: Arrays
    notes: Sequence[str] = ()
    _cached: Arrays = attrs.field(init=False)

    @_cached.default
    def _cache(self) -> Arrays:
        return lru_cache(2)(self.load)  # CIFAR-100 has two files, each with images of every class

    @property
    def counts(self) -> Mapping[str, int]:
        return {which: sum(len(rows) for _, rows in found) for which, found in self.rows.items()}

    def images(self, which: str) -> Iterator[tuple[str, Image]]:
        for file, rows in self.rows[which]:
            pixels = self._cached(file)
            for row in rows:
                yield f"{self.where(file)}, row {row}", pixels[row]

    def place(self, which: str) -> int:
        return self.lists.index(self.rows[which][0][0])
