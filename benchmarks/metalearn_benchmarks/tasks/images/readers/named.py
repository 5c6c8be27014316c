"""The reader of a known dataset in arrays, Parquet or Arrow files that name their classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import attrs

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.own.arrays import is_array, read_arrays
from metalearn_benchmarks.tasks.images.own.arrow import is_arrow, read_arrow
from metalearn_benchmarks.tasks.images.own.labelled import LabelledImages
from metalearn_benchmarks.tasks.images.sources.files import Files, non_images, skipping
from metalearn_benchmarks.tasks.images.sources.image_source import RawImage
from metalearn_benchmarks.tasks.images.splits import SplitList


@attrs.frozen(eq=False)
class NamedImages:
    """Images with the names of their classes.

    Args:
        labelled: The images.
        rows: The rows of each class that is wanted.
        lists: The files that hold them.
    """

    labelled: LabelledImages
    rows: Mapping[str, Sequence[int]]
    lists: Sequence[str]
    parts: Mapping[str, frozenset[str]] = attrs.field(factory=dict)

    @property
    def form(self) -> str:
        """The form of the copy, in words."""
        return self.labelled.form

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know about the copy."""
        return self.labelled.notes

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of images of each class that is wanted."""
        return {which: len(rows) for which, rows in self.rows.items()}

    def images(self, which: str) -> Iterator[tuple[str, RawImage]]:
        """Yield the images of a class in order."""
        yield from map(self.labelled.fetch, self.rows[which])

    def place(self, which: str) -> int:
        """Return the position of a class."""
        return self.rows[which][0]


def read_named(files: Files, dataset: Dataset, split: SplitList, left_out: list[str]) -> NamedImages | None:
    """Read a copy whose files name the class of each image as the split list does.

    Args:
        files, dataset, split: The copy, and what it must be.
        left_out: Takes a line for files that cannot be read.

    Returns:
        The images by class; None where no image is of a class that is wanted.
    """
    names = non_images(files)
    for wanted, read in ((is_arrow, read_arrow), (is_array, read_arrays)):
        chosen = [name for name in names if wanted(name)]
        if not chosen:
            continue
        with skipping(left_out):
            labelled = read(files, chosen)
            rows = defaultdict[str, list[int]](list)
            for row, label in enumerate(labelled.labels):
                if label in split.on_disk:
                    rows[label].append(row)
            if rows:
                return NamedImages(labelled, rows, chosen)
            left_out.append(
                f"{files.path}: its classes, such as {ascii(labelled.labels[0])[1:-1][:40]}, have other names"
                f" than those of {dataset.title}; under a name of your own it can be prepared as it is split"
            )
    return None
