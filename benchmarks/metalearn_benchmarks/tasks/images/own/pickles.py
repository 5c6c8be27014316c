"""The reader of pickles that name their split alone: those of MetaOptNet, and those of tieredImageNet."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from metalearn_benchmarks.tasks.images.own.labelled import LabelledImages, split_of
from metalearn_benchmarks.tasks.images.readers import pickled, unpickling
from metalearn_benchmarks.tasks.images.sources.files import Files, read_head
from metalearn_benchmarks.tasks.images.sources.image_source import RawImage
from metalearn_core.errors import UsageError

IMAGES, LABELS = ("_images_png.pkl", "_labels.pkl")
"""What the names of tieredImageNet's files end in, after the split."""


def is_pickled(files: Files, name: str) -> bool:
    """Tell whether a file may be a pickle of images or of labels."""
    return name.endswith(IMAGES) or unpickling.is_pickle(read_head(files, name))


@attrs.frozen(eq=False)
class _Part:
    """The images of one split.

    Args:
        where: The name of the file in messages.
        split: What the file calls its split.
        labels: The name of the class of each image.
        images: The file or the pixels of each image.
    """

    where: str
    split: str | None
    labels: Sequence[str]
    images: Sequence[RawImage]


def read_split_pickles(files: Files, names: list[str]) -> LabelledImages:
    """Read pickles of which each is a split, named after it.

    Nothing but arrays and plain containers is read from a pickle. Classes without names are called after
    their split and number, since numbers may begin anew in each file.

    Raises:
        UsageError: A pickle is damaged, asks for more than arrays, or is of no form that is known.
    """
    tiered = [name for name in names if name.endswith(IMAGES)]
    if tiered:
        parts = [_tiered_part(files, name) for name in tiered]
        form = "pickles of PNG files and of labels, as tieredImageNet has them"
    else:
        parts = [_plain_part(files, name) for name in names]
        form = "pickles of data and labels, as MetaOptNet has them"
    places = [(part, row) for part in parts for row in range(len(part.labels))]

    def fetch(row: int) -> tuple[str, RawImage]:
        part, inner = places[row]
        return f"{part.where}, row {inner}", part.images[inner]

    return LabelledImages(
        files.path,
        form,
        [label for part in parts for label in part.labels],
        [part.split for part in parts for _ in part.labels],
        fetch,
        files.facts(),
    )


def _plain_part(files: Files, name: str) -> _Part:
    where, content = files.where(name), pickled.content(files, name)
    if not {"data", "labels"} <= content.keys():
        pickled.layout_of(content, where)  # which says what is wrong with it
        raise UsageError(f"{where}: its keys are {', '.join(sorted(content))[:80]}, expected data and labels")
    pixels = pickled.pixels_of(content, pickled.Layout("", frozenset(), "data", _no_rows), where)
    numbers = _integers(where, content["labels"], len(pixels))
    split = _split_in(name)
    known = content.get("catname2label")
    names = {number: str(which) for which, number in known.items()} if isinstance(known, dict) else {}
    prefix = f"{split}-" if split and not names else ""
    return _Part(where, split, [names.get(each, f"{prefix}{each}") for each in numbers], pixels)


def _no_rows(content: Mapping[str, Any], names: Sequence[str]) -> pickled.Rows:
    return {}


def _tiered_part(files: Files, name: str) -> _Part:
    where, beside = files.where(name), name.removesuffix(IMAGES) + LABELS
    if beside not in files.names:
        raise UsageError(f"{where}: there is no {beside.rsplit('/', 1)[-1]} beside it, which has the labels")
    with files.open(name) as file:
        images = unpickling.load(file, where)
    if not isinstance(images, list) or not all(_is_file(each) for each in images):
        raise UsageError(f"{where}: expected a list of PNG files, each an array of bytes")
    labels = pickled.content(files, beside)
    numbers = _integers(files.where(beside), labels.get("label_specific"), len(images))
    names = labels.get("label_specific_str")
    known = [str(each) for each in names] if isinstance(names, list | tuple) else []
    split = _split_in(name)
    classes = [known[each] if 0 <= each < len(known) else f"{split}-{each}" for each in numbers]
    return _Part(where, split, classes, [bytes(np.asarray(each)) for each in images])


def _is_file(given: object) -> bool:
    return isinstance(given, bytes) or (isinstance(given, np.ndarray) and given.dtype == np.uint8)


def _integers(where: str, given: Any, count: int) -> list[int]:
    try:
        found = [
            operator.index(each) for each in (given.tolist() if isinstance(given, np.ndarray) else given)
        ]
    except TypeError as error:
        raise UsageError(f"{where}: its labels are no list of integers") from error
    if len(found) != count:
        raise UsageError(f"{where}: {count} images and {len(found)} labels")
    return found


def _split_in(name: str) -> str | None:
    """The word for a split in a file's name, such as `CIFAR_FS_val.pickle`."""
    words = name.rsplit("/", 1)[-1].split(".")[0].replace("-", "_").lower().split("_")
    return next((word for word in reversed(words) if split_of(word)), None)
