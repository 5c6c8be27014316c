"""Prepared images on disk: uint8 pixels in one memory-mapped array, a class after another, and a manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np

from metalearn_benchmarks.host.user_folders import data_folder
from metalearn_benchmarks.tasks.images.store.manifest import (
    SPLITS,
    ImageClass,
    Manifest,
    Pixels,
    read_manifest,
)
from metalearn_core.errors import UsageError, unknown

CHUNK = 1 << 22


@attrs.frozen(eq=False)
class ImageStore:
    """Images that are ready to be sampled; their pixels are shared by all processes that open them.

    Args:
        pixels: uint8 `[images, size, size, channels]`, memory-mapped, read-only.
    """

    folder: Path
    manifest: Manifest
    pixels: Pixels

    @classmethod
    def open(cls, folder: Path) -> ImageStore:
        """UsageError where nothing whole is there; the pixels' checksum is `verify`'s to look at."""
        manifest = read_manifest(folder)
        path = folder / manifest.file
        try:
            pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read ({error}); prepare the dataset again") from error
        if pixels.dtype != np.uint8 or pixels.shape != manifest.shape:
            raise UsageError(
                f"{path}: expected uint8 {list(manifest.shape)}, found {pixels.dtype} {list(pixels.shape)};"
                " prepare the dataset again"
            )
        return cls(folder, manifest, pixels)

    def classes(self, split: str) -> list[ImageClass]:
        """Those of a split, in the order of their rows."""
        if split not in SPLITS:
            raise unknown(f"split of {self.manifest.name}", split, SPLITS)
        return [each for each in self.manifest.classes if each.split == split]

    def verify(self, tell: Callable[[int], None] = lambda done: None) -> None:
        """UsageError unless the pixels are those that were written; `tell`: bytes read so far."""
        path = self.folder / self.manifest.file
        try:
            found = checksum(path, tell)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error}); prepare the dataset again") from error
        if found != self.manifest.sha256:
            raise UsageError(
                f"{path}: sha256 is {found}, expected {self.manifest.sha256}; it was damaged after it was"
                " prepared: remove it and prepare the dataset again (glyphs make themselves when used)"
            )


def checksum(path: Path, tell: Callable[[int], None] = lambda done: None) -> str:
    """sha256 of a file; `tell`: bytes read so far."""
    found, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            done += len(chunk)
            tell(done)
    return found.hexdigest()


def data_home() -> Path:
    """Where prepared datasets lie: `METALEARN_DATA`, or `metalearn` in the user's data folder."""
    told = os.environ.get("METALEARN_DATA")
    if told:
        return Path(told)
    return data_folder()


def store_folder(name: str, size: int) -> Path:
    """Where a dataset lies at a size."""
    return data_home() / name / str(size)
