"""A store of prepared images: uint8 pixels in one memory-mapped file, class after class, and a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np

from metalearn_benchmarks.tasks.images.store.manifest import (
    SPLITS,
    ImageClass,
    Manifest,
    Pixels,
    read_manifest,
    require_unchanged,
)
from metalearn_core.errors import UsageError, unknown

CHUNK = 1 << 22


@attrs.frozen(eq=False)
class ImageStore:
    """Prepared images. All processes that open a store share its pixels.

    Args:
        folder: The folder of the store.
        manifest: What it holds.
        pixels: uint8 `[images, size, size, channels]`, memory-mapped, read-only.
    """

    folder: Path
    manifest: Manifest
    pixels: Pixels

    @classmethod
    def open(cls, folder: Path, changed: bool = False) -> ImageStore:
        """Open the store in a folder. The checksum of the pixels is left to `verify`.

        Args:
            folder: The folder.
            changed: Whether a manifest that was changed after it was written may be opened, to say what is
                wrong with it.

        Raises:
            UsageError: No whole store is there.
        """
        manifest = read_manifest(folder)
        path = folder / manifest.file
        try:  # not `load`, which takes zip archives and pickles too
            pixels = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # NumPy raises whatever the bytes of a header lead it to
            said = " ".join(str(error).split())
            raise UsageError(
                f"{path}: cannot be read ({said}): it was damaged after it was prepared; prepare the dataset"
                " again"
            ) from error
        if pixels.dtype != np.uint8 or pixels.shape != manifest.shape or not pixels.flags.c_contiguous:
            raise UsageError(
                f"{path}: expected uint8 {list(manifest.shape)}, found {pixels.dtype} {list(pixels.shape)};"
                " prepare the dataset again"
            )
        if not changed:
            require_unchanged(manifest, folder)
        return cls(folder, manifest, pixels)

    def classes(self, split: str) -> list[ImageClass]:
        """Return the classes of a split, in the order of their rows.

        Raises:
            UsageError: There is no such split.
        """
        if split not in SPLITS:
            raise unknown(f"split of {self.manifest.name}", split, SPLITS)
        return [each for each in self.manifest.classes if each.split == split]

    def verify(self, tell: Callable[[int], None] = lambda done: None) -> None:
        """Compare the checksum of the pixels with the manifest.

        Args:
            tell: Called with the number of bytes read so far.

        Raises:
            UsageError: The pixels are not those that were written.
        """
        require_unchanged(self.manifest, self.folder)
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
    """Compute the sha256 of a file.

    Args:
        path: The file.
        tell: Called with the number of bytes read so far.
    """
    found, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            done += len(chunk)
            tell(done)
    return found.hexdigest()
