"""The images of a copy of a dataset by class: images that are files, and images that lie in arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt

from metalearn_benchmarks.tasks.images.sources.files import Files, read_file

RawImage = bytes | npt.NDArray[np.uint8]
"""An image's file, or its pixels, `[height, width, 3]`."""


class ImageSource(Protocol):
    """The images of a copy of a dataset, by class."""

    @property
    def form(self) -> str:
        """The form of the copy, in words."""

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of images of each class that is wanted."""

    @property
    def parts(self) -> Mapping[str, frozenset[str]]:
        """The classes of each part of the copy. A part is the name of a list, a folder or a pickle."""

    @property
    def lists(self) -> Sequence[str]:
        """The names of the files that were read whole to find the images."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know about the copy."""

    def images(self, which: str) -> Iterator[tuple[str, RawImage]]:
        """Yield the images of a class in order, each with its name for messages."""

    def place(self, which: str) -> int:
        """Return the position of a class. Reading classes in the order of positions is fastest."""


@attrs.frozen(eq=False)
class ImageFiles:
    """Images that are files.

    Args:
        files: Where they lie.
        form: The form of the copy, in words.
        members: The names of the images of each class, in the order of their rows.
        parts: The classes of each part of the copy.
        lists: The files that were read whole to find the images.
        notes: What the user should know about the copy.
    """

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

    def images(self, which: str) -> Iterator[tuple[str, RawImage]]:
        names = self.members[which]
        data = {name: read_file(self.files, name) for name in sorted(names, key=self._places.__getitem__)}
        for name in names:
            yield self.files.where(name), data[name]

    def place(self, which: str) -> int:
        return min(self._places[name] for name in self.members[which])


class PixelLoader(Protocol):
    """Loads the pixels of a file by its name: uint8 `[images, height, width, 3]`."""

    def __call__(self, name: str) -> npt.NDArray[np.uint8]: ...


@attrs.frozen(eq=False)
class ImageArrays:
    """Images that lie in arrays.

    Args:
        where: Returns the name of a file for messages.
        form: The form of the copy, in words.
        rows: For each class the files, and the rows of the array in each file, in order.
        parts: The classes of each part of the copy.
        lists: The files, in the order in which reading is fastest.
        load: Loads the pixels of a file.
        notes: What the user should know about the copy.
    """

    where: Callable[[str], str]
    form: str
    rows: Mapping[str, Sequence[tuple[str, Sequence[int]]]]
    parts: Mapping[str, frozenset[str]]
    lists: Sequence[str]
    load: PixelLoader
    notes: Sequence[str] = ()
    _cached: PixelLoader = attrs.field(init=False)

    @_cached.default
    def _cache(self) -> PixelLoader:
        return lru_cache(2)(self.load)  # CIFAR-100 has two files, each with images of every class

    @property
    def counts(self) -> Mapping[str, int]:
        return {which: sum(len(rows) for _, rows in found) for which, found in self.rows.items()}

    def images(self, which: str) -> Iterator[tuple[str, RawImage]]:
        for file, rows in self.rows[which]:
            pixels = self._cached(file)
            for row in rows:
                yield f"{self.where(file)}, row {row}", pixels[row]

    def place(self, which: str) -> int:
        return self.lists.index(self.rows[which][0][0])
