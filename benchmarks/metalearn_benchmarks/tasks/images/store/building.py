"""Stores that are built at their first use: once, however many processes ask at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from metalearn_benchmarks.host.locks import locked
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.manifest import Manifest, Pixels
from metalearn_benchmarks.tasks.images.store.writer import StoreWriter
from metalearn_core.errors import UsageError

ManifestAndPixels = tuple[Manifest, Mapping[str, Pixels]]
"""What a store is to hold, and the images of each class by its name."""


def load_or_build(folder: Path, make: Callable[[], ManifestAndPixels]) -> ImageStore:
    """Open the store in a folder. Build it first where there is none, or one that cannot be read.

    Args:
        folder: The folder of the store.
        make: Returns the manifest and the pixels of each class. It must return the same ones every time.

    Raises:
        UsageError: The folder cannot be written. Errors of `make` pass through.
    """
    try:
        return ImageStore.open(folder)
    except UsageError:
        pass  # missing or damaged: `make` gives the same bits again
    try:
        with _alone(folder):
            try:  # another process may have been first
                return ImageStore.open(folder)
            except UsageError:
                return _write(folder, *make())
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written ({error.strerror or error}); mend that, or name another folder in"
            " METALEARN_DATA"
        ) from error


def _write(folder: Path, manifest: Manifest, images: Mapping[str, Pixels]) -> ImageStore:
    with StoreWriter(folder, manifest) as writer:
        for each in writer.remaining():
            writer.put(each, images[each.name])
        return writer.finish()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process in at a time. The system releases the lock when that process dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        yield
