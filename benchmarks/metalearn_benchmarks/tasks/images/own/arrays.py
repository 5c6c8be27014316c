"""The reader of a user's own images in arrays of NumPy: `.npz`, or `images.npy` beside `labels.npy`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from metalearn_benchmarks.tasks.images.own.labelled import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    LabelledImages,
    find_column,
    require_columns,
    split_of,
)
from metalearn_benchmarks.tasks.images.sources.files import Files
from metalearn_core.errors import UsageError

Arrays = dict[str, npt.NDArray[Any]]
LARGEST_ARRAY = 1 << 36
"""Bytes that an array may say it has."""


def is_array(name: str) -> bool:
    """Tell by its name whether a file holds arrays."""
    return name.lower().endswith((".npy", ".npz"))


def read_arrays(files: Files, names: list[str]) -> LabelledImages:
    """Read arrays of images and of labels.

    Of several `.npz` files each is a split, named after it: `train.npz`. Several `.npy` files are the arrays
    `images` and `labels`, and perhaps `split`.

    Raises:
        UsageError: An array holds objects, is damaged or missing, or they do not fit together.
    """
    packed = [name for name in names if name.lower().endswith(".npz")]
    if packed:
        parts = [_Part.of(files.where(name), _load_packed(files, name), _stem(name)) for name in packed]
    else:
        loaded = {_stem(name): _load_one(files, name) for name in names}
        parts = [_Part.of(str(files.path), loaded, "")]
    ends = np.cumsum([len(part.labels) for part in parts])

    def fetch(row: int) -> tuple[str, npt.NDArray[np.uint8]]:
        which = int(np.searchsorted(ends, row, side="right"))
        inner = row - int(ends[which] - len(parts[which].labels))
        return f"{parts[which].where}, row {inner}", parts[which].images[inner]

    return LabelledImages(
        files.path,
        "arrays of images and labels",
        [label for part in parts for label in part.labels],
        [split for part in parts for split in part.splits],
        fetch,
        files.facts(),
    )


class _Part:
    """The arrays of one split, or all of them."""

    def __init__(self, where: str, images: npt.NDArray[np.uint8], labels: list[str]) -> None:
        self.where, self.images, self.labels = where, images, labels
        self.splits: list[str | None] = [None] * len(labels)

    @classmethod
    def of(cls, where: str, arrays: Mapping[str, npt.NDArray[Any]], stem: str) -> _Part:
        """Find the arrays by their names, and check that they fit together.

        Raises:
            UsageError: One is missing, or is of another kind or length.
        """
        image, label, split = require_columns(where, list(arrays))
        labels = arrays[label]
        if labels.ndim != 1 or labels.dtype.kind not in "iuUS":
            raise UsageError(
                f"{where}: {label} is {labels.dtype} {list(labels.shape)}, expected an integer or a word for"
                " each image"
            )
        found = cls(where, _pixels(where, image, arrays[image]), [_text(one) for one in labels.tolist()])
        if len(found.images) != len(found.labels):
            raise UsageError(f"{where}: {len(found.images)} images and {len(found.labels)} labels")
        if split is not None and len(arrays[split]) == len(labels):
            found.splits = [_text(one) for one in arrays[split].tolist()]
        elif split_of(stem):
            found.splits = [stem] * len(labels)
        return found


def _pixels(where: str, name: str, given: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return uint8 `[images, height, width]` or `[images, height, width, 3]`.

    Raises:
        UsageError: The array is anything else.
    """
    if given.dtype == bool:
        given = given.astype(np.uint8) * np.uint8(255)
    if given.dtype == np.uint8:
        if given.ndim == 4 and given.shape[1] in (1, 3) and given.shape[3] not in (1, 3):
            given = np.moveaxis(given, 1, 3)
        if given.ndim == 4 and given.shape[3] == 1:
            given = given[..., 0]
        if (given.ndim == 3 or (given.ndim == 4 and given.shape[3] == 3)) and 0 not in given.shape[1:]:
            return given
    raise UsageError(
        f"{where}: {name} is {given.dtype} {list(given.shape)}, expected uint8 [images, height, width], with"
        " 3 colours or without; of numbers in [0, 1], save (255 * x).astype('uint8')"
    )


def _load_packed(files: Files, name: str) -> Arrays:
    where = files.where(name)
    known = {*IMAGE_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS}
    try:
        with files.open(name) as file, zipfile.ZipFile(io.BytesIO(file.read())) as packed:
            members = {each.filename.removesuffix(".npy"): each for each in packed.infolist()}
            wanted = [member for member in members if find_column([member], sorted(known))]
            return {member: _array(where, packed.read(members[member])) for member in wanted}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{where}: no whole .npz file ({' '.join(str(error).split())})") from error


def _load_one(files: Files, name: str) -> npt.NDArray[Any]:
    with files.open(name) as file:
        return _array(files.where(name), file.read())


def _array(where: str, data: bytes) -> npt.NDArray[Any]:
    """Return the array of a `.npy` file.

    Raises:
        UsageError: It holds objects, which could run code, or is damaged.
    """
    try:
        found: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return found
    except ValueError as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise UsageError(
                f"{where}: refused, an array of objects, which could run code; save numbers and words"
            ) from error
        raise UsageError(f"{where}: no whole array ({' '.join(str(error).split())[:120]})") from error
    except Exception as error:  # NumPy raises whatever the bytes of a header lead it to
        raise UsageError(f"{where}: no whole array ({' '.join(str(error).split())[:120]})") from error


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
