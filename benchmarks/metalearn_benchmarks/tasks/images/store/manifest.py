"""The manifest of a store: what it holds, and what it was made from."""

from __future__ import annotations

import hashlib
import json
import re
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

LARGEST_MANIFEST = 1 << 26
"""Bytes."""

Pixels = npt.NDArray[np.uint8]

SHA256 = re.compile(r"[0-9a-f]{64}")

LOST_BEFORE = {
    **dict.fromkeys(("RGBA", "LA", "PA", "RGBa", "La", "P"), "lost what was transparent in them"),
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N", "I"), "made 16-bit grey white"),
    "F": "cut floating-point pixels off",
}
"""By the mode that images had: what earlier versions did to them."""


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


@attrs.define
class Tally:
    """What was done to images while they were decoded.

    Args:
        counts: How many images each thing was done to.
        examples: For each thing, the name of the first of these images.
    """

    counts: dict[str, int] = attrs.field(factory=dict)
    examples: dict[str, str] = attrs.field(factory=dict)

    def count(self, what: str, name: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        self.examples.setdefault(what, name)


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
        examples: For each key of `tally`, the name of the first image that was counted.
        checksum: The checksum of everything else in the manifest, as it was read. It binds classes to their
            rows. Empty in the manifests of earlier versions, which had none.
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
    examples: Mapping[str, str] = attrs.field(factory=dict)
    checksum: str = ""

    @property
    def file(self) -> str:
        """The name of the file of pixels. A manifest only ever fits the pixels it was written for."""
        return f"pixels-{self.sha256[:16]}.npy"

    @property
    def plan(self) -> Manifest:
        """The manifest as it was before any pixel was written."""
        return attrs.evolve(self, tally={}, sha256="", examples={}, checksum="")

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an earlier version may have lost in the pixels, a sentence for each mode of image."""
        if self.checksum or "convert" in self.source:
            return ()
        modes = {what.removeprefix("converted from "): count for what, count in self.tally.items()}
        return tuple(
            f"{count} images were converted from {mode} by an earlier version, which {LOST_BEFORE[mode]}:"
            f" prepare {self.name} again"
            for mode, count in modes.items()
            if mode in LOST_BEFORE
        )

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
        plain = attrs.asdict(self)
        return json.dumps(plain | {"checksum": _checksum(plain)}, indent=1)


def _checksum(plain: Mapping[str, Any]) -> str:
    """The sha256 of everything in a manifest but its checksum."""
    rest = {key: value for key, value in plain.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a store.

    Raises:
        UsageError: It is missing, damaged, or of a newer version.
    """
    path = folder / MANIFEST
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST_MANIFEST + 1)
        plain = json.loads(text)
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder}: no prepared images there; `metalearn data prepare` makes them"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); prepare the dataset again") from error
    if isinstance(plain, dict) and isinstance(plain.get("format"), int) and plain["format"] > FORMAT:
        raise UsageError(f"{path}: format {plain['format']}, this version reads up to {FORMAT}; upgrade it")
    try:
        found = cattrs.structure(plain, Manifest)
    except Exception as error:  # cattrs raises groups of whatever went wrong
        raise UsageError(f"{path}: not a manifest of images; prepare the dataset again") from error
    names = {each.name for each in found.classes}
    sound = (
        len(names) == len(found.classes) and all(each.split in SPLITS for each in found.classes)
        and found.channels in (1, 3) and 0 < found.size <= 1 << 16 and SHA256.fullmatch(found.sha256)
    )  # fmt: skip
    if not sound:  # the checksum becomes part of a path
        raise UsageError(f"{path}: not a manifest of images; prepare the dataset again")
    return found


def require_unchanged(found: Manifest, folder: Path) -> None:
    """Require that a manifest is the one that was written.

    Manifests of earlier versions have no checksum. Of these it is required that rows follow one another.

    Args:
        found: The manifest.
        folder: The folder of its store.

    Raises:
        UsageError: It was changed.
    """
    changed = f"{folder / MANIFEST}: was changed after it was written"
    row = 0
    for each in found.classes:
        if each.first != row or each.count < 1:
            raise UsageError(
                f"{changed}: class {ascii(each.name)[1:-1]} begins at row {each.first} and has {each.count}"
                f" images, expected row {row} and some; remove it and prepare the dataset again"
            )
        row += each.count
    expected = _checksum(attrs.asdict(found))
    if found.checksum and found.checksum != expected:
        raise UsageError(
            f"{changed}: its checksum is {expected}, it says {ascii(found.checksum[:64])[1:-1]}; remove it"
            " and prepare the dataset again"
        )
