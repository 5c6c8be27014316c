"""The manifest of a store: what it holds, and what it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import cattrs
import numpy as np
import numpy.typing as npt

from metalearn_core.errors import UsageError

FORMAT = 1

MANIFEST = "manifest.json"

SPLITS = ("train", "validation", "test")

Pixels = npt.NDArray[np.uint8]


class NotPreparedError(UsageError):
    """A dataset that is not prepared. What does not need it can still be run."""


@attrs.frozen
class ImageClass:
    """A class, and where its images lie.

    Args:
        name: The name of the class.
        split: One of `SPLITS`.
        first: The row of its first image.
        count: The number of its images, which lie in consecutive rows.
    """

    name: str
    split: str
    first: int
    count: int


@attrs.frozen
class Manifest:
    """What a store holds, and what it was made from.

    Args:
        name: The name of the dataset.
        split: The name of the list that says which class is in which split.
        size: Height and width of an image, in pixels.
        channels: 1 (grey) or 3 (RGB).
        classes: The classes in the order of their rows.
        source: What it was made from: names, checksums, versions, how images were resized.
        tally: What was counted while it was made, such as images that were converted to RGB.
        sha256: The checksum of the file of pixels; empty while that is being written.
        format: The version of this form.
    """

    name: str
    split: str
    size: int
    channels: int
    classes: tuple[ImageClass, ...]
    source: Mapping[str, Any]
    tally: Mapping[str, int] = attrs.field(factory=dict)
    sha256: str = ""
    format: int = FORMAT

    @property
    def file(self) -> str:
        """The name of the file of pixels. A manifest only ever fits the pixels it was written for."""
        return f"pixels-{self.sha256[:16]}.npy"

    @property
    def plan(self) -> Manifest:
        """The manifest as it was before any pixel was written."""
        return attrs.evolve(self, tally={}, sha256="")

    @property
    def images(self) -> int:
        """The number of images."""
        return sum(each.count for each in self.classes)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the pixels, `[images, size, size, channels]`."""
        return (self.images, self.size, self.size, self.channels)

    @classmethod
    def of(
        cls, name: str, split: str, size: int, channels: int,
        counts: Sequence[tuple[str, str, int]], source: Mapping[str, Any],
    ) -> Manifest:  # fmt: skip
        """Build a manifest from the number of images in each class.

        Args:
            name, split, size, channels, source: As for `Manifest`.
            counts: Name, split and number of images of each class, in the order of the rows.
        """
        classes, first = [], 0
        for label, part, count in counts:
            classes.append(ImageClass(label, part, first, count))
            first += count
        return cls(name, split, size, channels, tuple(classes), dict(source))

    def as_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(attrs.asdict(self), indent=1, ensure_ascii=False)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a store.

    Raises:
        UsageError: It is missing, damaged, or of a newer version.
    """
    path = folder / MANIFEST
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder}: no prepared images there; `metalearn data prepare` makes them"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); prepare the dataset again") from error
    if isinstance(plain, dict) and isinstance(plain.get("format"), int) and plain["format"] > FORMAT:
        raise UsageError(f"{path}: format {plain['format']}, this version reads up to {FORMAT}; upgrade it")
    try:
        return cattrs.structure(plain, Manifest)
    except Exception as error:  # cattrs raises groups of whatever went wrong
        raise UsageError(f"{path}: not a manifest of images; prepare the dataset again") from error
