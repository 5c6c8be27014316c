"""The reader of images in pickles: it tells files of the dataset from other files with the same classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.readers import pickled
from metalearn_benchmarks.tasks.images.readers.pickled import Layout, Rows
from metalearn_benchmarks.tasks.images.readers.unpickling import is_pickle
from metalearn_benchmarks.tasks.images.sources.files import Files, non_images, read_head, skipping
from metalearn_benchmarks.tasks.images.sources.image_source import ImageArrays
from metalearn_benchmarks.tasks.images.splits import SplitList


@attrs.frozen
class Pickle:
    """One file of images: its name, its layout, and the rows of each class that is wanted."""

    name: str
    layout: Layout
    rows: Rows


@attrs.define
class _Chosen:
    rows: dict[str, list[tuple[str, list[int]]]] = attrs.field(factory=lambda: defaultdict(list))
    notes: list[str] = attrs.field(factory=list)

    def take(self, each: Pickle, classes: Sequence[str]) -> None:
        for which in classes:
            self.rows[which].append((each.name, each.rows[which]))


def read_pickles(files: Files, dataset: Dataset, split: SplitList, left_out: list[str]) -> ImageArrays | None:
    """Read a copy that consists of pickles.

    Args:
        files, dataset, split: The copy, and what it must be.
        left_out: Takes a line for each pickle that cannot be read, or that holds something else.

    Returns:
        The images by class; None where there is no pickle of images.
    """
    names = [name for name in non_images(files) if is_pickle(read_head(files, name))]
    found = _indexed(files, names, split, left_out)
    if not found:
        return None
    chosen = _choose(found, dataset)
    layouts = {each.name: each.layout for each in found}

    def load(name: str) -> npt.NDArray[np.uint8]:
        return pickled.pixels_of(pickled.content(files, name), layouts[name], files.where(name))

    return ImageArrays(
        files.where,
        found[0].layout.form,
        chosen.rows,
        {each.name: frozenset(each.rows) for each in found if not each.layout.pooled},
        [each.name for each in found],
        load,
        chosen.notes,
    )


def _indexed(files: Files, names: list[str], split: SplitList, left_out: list[str]) -> list[Pickle]:
    """Pickles with images of wanted classes.

    One is in memory at a time: together they can be larger than it is.
    """
    numbered, waiting = sorted(split.on_disk), []
    indexed: list[Pickle] = []
    for name in names:
        with skipping(left_out):
            content = pickled.content(files, name)
            if pickled.NAMES in content:
                numbered = pickled.class_names(content, files.where(name))
                continue
            layout = pickled.layout_of(content, files.where(name))
            if layout.pooled:
                waiting.append(name)  # for the names of the classes
            else:
                indexed += _index(files, name, content, layout, [], split.on_disk)
    for name in waiting:
        with skipping(left_out):
            content = pickled.content(files, name)
            layout = pickled.layout_of(content, files.where(name))
            indexed += _index(files, name, content, layout, numbered, split.on_disk)
    return indexed


def _index(
    files: Files, name: str, content: Mapping[str, object], layout: Layout, numbered: Sequence[str],
    wanted: Mapping[str, str],
) -> list[Pickle]:  # fmt: skip
    rows = pickled.rows_of(content, layout, numbered, files.where(name))
    kept = {which: found for which, found in rows.items() if which in wanted and found}
    return [Pickle(name, layout, kept)] if kept else []


def _choose(found: list[Pickle], dataset: Dataset) -> _Chosen:
    """Whole classes first: files with other images of classes that are whole elsewhere are left out."""
    chosen = _Chosen()
    pooled = [each for each in found if each.layout.pooled]
    for each in sorted(pooled, key=lambda one: (-sum(map(len, one.rows.values())), one.name)):
        chosen.take(each, list(each.rows))  # the larger file first, however they lie on disk
    rest = [each for each in found if not each.layout.pooled]
    for each in sorted(rest, key=lambda one: not _is_whole(one, dataset)):
        missing = [which for which in each.rows if which not in chosen.rows]
        chosen.take(each, missing)
        if not missing:
            images = sum(map(len, each.rows.values()))
            chosen.notes.append(
                f"{each.name}: left out, {images} further images of {len(each.rows)} classes that are whole"
                " without it"
            )
    return chosen


def _is_whole(each: Pickle, dataset: Dataset) -> bool:
    """Whether every class in it has all its images."""
    return all(dataset.per_class in (None, len(rows)) for rows in each.rows.values())
