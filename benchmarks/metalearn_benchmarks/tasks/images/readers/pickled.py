"""The layouts of pickles with images: where the pixels are, and which rows belong to a class."""

from __future__ import annotations

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
    return {_text(which): [int(row) for row in rows] for which, rows in content["class_dict"].items()}


def _by_category(content: Mapping[str, Any], _: Sequence[str]) -> Rows:
    labels = np.asarray(content["labels"])
    return {
        _text(which): np.flatnonzero(labels == label).tolist()
        for which, label in content["catname2label"].items()
    }


def _by_number(content: Mapping[str, Any], numbered: Sequence[str]) -> Rows:
    labels = np.asarray(content["fine_labels"])
    return {which: np.flatnonzero(labels == number).tolist() for number, which in enumerate(numbered)}


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


def content(files: Files, name: str) -> dict[str, Any]:
    """Read the dictionary of a pickle, with its keys as text; {} for a pickle of anything else.

    Raises:
        UsageError: The file is damaged, or asks for more than arrays and plain containers.
    """
    with files.open(name) as file:
        found = unpickling.load(file, files.where(name))
    return {_text(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def layout_of(found: Mapping[str, Any]) -> Layout | None:
    """Return the layout of a dictionary; None where it is not known."""
    return next((each for each in LAYOUTS if each.keys <= set(found)), None)


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
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"{name}: {' and '.join(sorted(layout.keys))} do not fit together") from error
    for which, numbers in rows.items():
        if any(not 0 <= row < images for row in numbers):
            raise UsageError(f"{name}: class {which} has rows beyond its {images} images")
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
        if pixels.ndim == 4 and pixels.shape[3] == 3:
            return pixels
    what = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
    raise UsageError(f"{name}: {layout.pixels} is {what}, expected uint8 [images, height, width, 3]")


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
