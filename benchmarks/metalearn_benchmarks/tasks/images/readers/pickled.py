"""The layouts of pickles with images: where the pixels are, and which rows belong to a class."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from metalearn_benchmarks.tasks.images.readers import unpickling
from metalearn_benchmarks.tasks.images.sources.files import Files
from metalearn_core.errors import UsageError

Rows = dict[str, list[int]]
CIFAR_SIDE = 32
SHOWN = 6
"""Keys of a dictionary that are shown in a message."""


@attrs.frozen
class Layout:
    """One known layout of pickles.

    Args:
        form: The layout in words.
        keys: The keys by which it is told.
        pixels: The key of the pixels.
        rows: Computes the rows of each class from the content and the class names in the order of their
            numbers.
        pooled: Whether images of one class are spread over several files.
    """

    form: str
    keys: frozenset[str]
    pixels: str
    rows: Callable[[Mapping[str, Any], Sequence[str]], Rows]
    pooled: bool = False


def _by_dictionary(content: Mapping[str, Any], _: Sequence[str]) -> Rows:
    return {
        _text(which): [operator.index(row) for row in rows] for which, rows in content["class_dict"].items()
    }


def _by_category(content: Mapping[str, Any], _: Sequence[str]) -> Rows:
    labels = _labels(content["labels"])
    return {
        _text(which): np.flatnonzero(labels == operator.index(label)).tolist()
        for which, label in content["catname2label"].items()
    }


def _by_number(content: Mapping[str, Any], numbered: Sequence[str]) -> Rows:
    labels = _labels(content["fine_labels"])
    return {which: np.flatnonzero(labels == number).tolist() for number, which in enumerate(numbered)}


def _labels(given: Any) -> npt.NDArray[np.int64]:
    """Integers, one for each image; TypeError for anything else."""
    if isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype.kind in "iu":
        return given.astype(np.int64)
    if isinstance(given, list | tuple):
        return np.array([operator.index(one) for one in given], np.int64)
    raise TypeError("labels are no list of integers")


LAYOUTS = (
    Layout(
        "pickles of image_data and class_dict (mini-imagenet-cache)",
        frozenset({"image_data", "class_dict"}), "image_data", _by_dictionary,
    ),
    Layout(
        "pickles of data, labels and catname2label (category_split)",
        frozenset({"data", "labels", "catname2label"}), "data", _by_category,
    ),
    Layout(
        "CIFAR-100 in its Python version",
        frozenset({"data", "fine_labels"}), "data", _by_number, pooled=True,
    ),
)  # fmt: skip
NAMES = "fine_label_names"
"""CIFAR-100 keeps its classes' names in a pickle of their own."""
NOT_READ = {
    "label_specific": "labels as tieredImageNet has them, which is prepared under a name of your own",
    "labels": "images or labels without the names of their classes, as MetaOptNet's CIFAR_FS and FC100 have"
    " them, so that nothing tells which class is which; under a name of your own they can be prepared",
}
"""Layouts that people have and that are not read, by a key of theirs."""


def content(files: Files, name: str) -> dict[str, Any]:
    """Read the dictionary of a pickle, with its keys as text.

    Raises:
        UsageError: The file is damaged, asks for more than arrays and plain containers, or is no dictionary.
    """
    with files.open(name) as file:
        found = unpickling.load(file, files.where(name))
    if not isinstance(found, dict):
        many = f" of {len(found):,} objects" if isinstance(found, list | tuple) else ""
        raise UsageError(
            f"{files.where(name)}: no pickle of images whose layout is known: it holds a"
            f" {type(found).__name__}{many}, expected a dictionary"
        )
    return {_text(key): value for key, value in found.items()}


def layout_of(found: Mapping[str, Any], name: str) -> Layout:
    """Return the layout of a dictionary.

    Raises:
        UsageError: It is not known; the message says what the dictionary holds.
    """
    layout = next((each for each in LAYOUTS if each.keys <= set(found)), None)
    if layout is None:
        keys = [ascii(key)[1:-1][:40] for key in list(found)[:SHOWN]] + ["..."] * (len(found) > SHOWN)
        known = next((f": {words}" for key, words in NOT_READ.items() if key in found), "")
        raise UsageError(
            f"{name}: no pickle of images whose layout is known{known}; its keys are"
            f" {', '.join(keys) or 'none'}"
        )
    return layout


def class_names(found: Mapping[str, Any], name: str) -> list[str]:
    """Return the names of CIFAR-100's classes in the order of their numbers.

    Raises:
        UsageError: They are no names.
    """
    names = found[NAMES]
    if not isinstance(names, list | tuple) or not all(isinstance(each, str | bytes) for each in names):
        raise UsageError(f"{name}: {NAMES} is no list of names")
    return [_text(each) for each in names]


def rows_of(found: Mapping[str, Any], layout: Layout, numbered: Sequence[str], name: str) -> Rows:
    """Compute the rows of each class.

    Args:
        found: The dictionary of the pickle.
        layout: Its layout.
        numbered: The class names in the order of their numbers.
        name: The name of the file in messages.

    Raises:
        UsageError: They are no rows of the pixels that are there.
    """
    images = len(pixels_of(found, layout, name))
    try:
        rows = layout.rows(found, numbered)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{name}: {' and '.join(sorted(layout.keys))} do not fit together") from error
    for which, numbers in rows.items():
        if any(not 0 <= row < images for row in numbers):
            raise UsageError(f"{name}: class {_shown(which)} has rows beyond its {images} images")
        if len(set(numbers)) != len(numbers):
            raise UsageError(f"{name}: class {_shown(which)} has one row twice")
    return rows


def pixels_of(found: Mapping[str, Any], layout: Layout, name: str) -> npt.NDArray[np.uint8]:
    """Return the pixels of a pickle, uint8 `[images, height, width, 3]`.

    Raises:
        UsageError: They are anything else.
    """
    pixels = found[layout.pixels]
    if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8:
        if pixels.ndim == 2 and pixels.shape[1] == 3 * CIFAR_SIDE**2:
            return pixels.reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)
        if pixels.ndim == 4 and pixels.shape[3] == 3 and 0 not in pixels.shape[1:]:
            return pixels
    what = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
    raise UsageError(f"{name}: {layout.pixels} is {what}, expected uint8 [images, height, width, 3]")


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _shown(which: str) -> str:
    return ascii(which)[1:-1][:60]
