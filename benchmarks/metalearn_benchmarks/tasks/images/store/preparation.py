"""Prepare a store from a user's copy of a dataset: check, decode, resize, write; and verify it later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.readers.detection import DetectedDataset, detect_dataset
from metalearn_benchmarks.tasks.images.sources.files import Checksums, Folder
from metalearn_benchmarks.tasks.images.sources.image_source import RawImage
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_benchmarks.tasks.images.store import decoding
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.manifest import MANIFEST, Manifest
from metalearn_benchmarks.tasks.images.store.writer import StoreWriter
from metalearn_core.errors import UsageError

ReportProgress = Callable[[str, int, int | None], None]
"""What is being done, how much of it, of how much if that is known."""


@attrs.frozen(eq=False)
class PreparedStore:
    """A store, and what came of its preparation.

    Args:
        store: The store.
        notes: What the user should know about the copy it was made from.
        already: Whether it was there already.
    """

    store: ImageStore
    notes: tuple[str, ...]
    already: bool = False


def prepare(
    dataset: Dataset, split: SplitList, path: Path, folder: Path, size: int, tell: ReportProgress,
    processes: int | None = None,
) -> PreparedStore:  # fmt: skip
    """Prepare a store from a copy of a dataset, and go on where an earlier call was cut off.

    Args:
        dataset: The dataset that the copy must be.
        split: The split list.
        path: The copy: a folder, an archive or a file.
        folder: The folder of the store.
        size: Height and width of an image, in pixels.
        tell: Called with what is being done, how much of it is done, and how much there is if that is known.
        processes: How many processes decode images; None decides by the number of images and of cores.

    Raises:
        UsageError: The copy is not whole, or not that dataset. Then nothing is written.
        WriteError: The disk is full, or the folder cannot be written.
    """
    tell(f"reading {path}", 0, None)
    found = detect_dataset(dataset, split, path)
    manifest = plan_manifest(dataset, split, found, size)
    return write_store(folder, manifest, found.source, found.notes, tell, processes)


class ClassImages(Protocol):
    """The images of each class of a store that is to be written."""

    def images(self, which: str) -> Iterator[tuple[str, RawImage]]:
        """Yield the images of a class in order, each with its name for messages."""

    def place(self, which: str) -> int:
        """Return the position of a class. Reading classes in the order of positions is fastest."""


def write_store(
    folder: Path, manifest: Manifest, source: ClassImages, notes: tuple[str, ...], tell: ReportProgress,
    processes: int | None = None,
) -> PreparedStore:  # fmt: skip
    """Write a store of images that are decoded on the way, unless a whole one of the same plan is there.

    Args:
        folder: The folder of the store.
        manifest: What the store will hold.
        source: The images.
        notes: What the user should know about the copy.
        tell, processes: As for `prepare`.

    Raises:
        UsageError: An image cannot be decoded.
        WriteError: The disk is full, or the folder cannot be written.
    """
    there = _store_at(folder)
    if there is not None and there.manifest.plan == manifest and _is_whole(there, tell):
        return PreparedStore(there, notes, already=True)
    with StoreWriter(folder, manifest) as writer:
        with decoding.decoder(manifest.images, manifest.size, manifest.channels, processes) as decode:
            _fill(writer, source, decode, tell)
        return PreparedStore(writer.finish(), notes)


def _store_at(folder: Path) -> ImageStore | None:
    try:
        return ImageStore.open(folder)
    except UsageError:
        return None


def _is_whole(there: ImageStore, tell: ReportProgress) -> bool:
    """Whether the pixels are those that were written; those that are not are put away."""
    try:
        _verify_pixels(there, tell)
    except UsageError:
        (there.folder / there.manifest.file).unlink(missing_ok=True)
        return False
    return True


def _fill(writer: StoreWriter, source: ClassImages, decode: decoding.Decoder, tell: ReportProgress) -> None:
    """Every class that is missing, in the order in which they lie in the source."""
    disk = SplitList.parse_class_name
    remaining = sorted(writer.remaining(), key=lambda each: source.place(disk(each.name)[0]))
    done = writer.manifest.images - sum(each.count for each in remaining)
    for each in remaining:
        tell(each.name, done, writer.manifest.images)
        name, turns = disk(each.name)
        pixels, tally = decode(source.images(name))
        writer.put(each, np.rot90(pixels, turns, axes=(1, 2)), tally.counts, tally.examples)
        done += each.count
    tell("checksum", done, writer.manifest.images)


def plan_manifest(dataset: Dataset, split: SplitList, found: DetectedDataset, size: int) -> Manifest:
    """Build the manifest of a store before its first pixel is written."""
    counts = found.source.counts
    classes = [
        (name, part, counts[SplitList.parse_class_name(name)[0]]) for name, part in split.classes.items()
    ]
    source: dict[str, Any] = {
        "dataset": dataset.title,
        "form": found.source.form,
        "split list": {"title": split.title, "source": split.source},
        "from": dict(found.files.facts()),
        **decoding.decoder_versions(),
    }
    if isinstance(found.files, Folder):
        source["lists"] = {
            name: attrs.asdict(Checksums.of(found.files.path / name)) for name in found.source.lists
        }
    return Manifest.of(dataset.name, split.name, size, dataset.channels, classes, source)


def require_split(dataset: Dataset, manifest: Manifest) -> None:
    """Require that the classes and counts of a store are those of its split list.

    Raises:
        UsageError: They are not.
    """
    split = dataset.split(manifest.split)
    classes = {each.name: each.split for each in manifest.classes}
    if classes != dict(split.classes):
        wrong = sorted(set(classes.items()) ^ set(split.classes.items()))
        raise UsageError(
            f"{dataset.name}: {wrong[0][0]} is not where {split.title} has it; prepare the dataset again"
        )
    total = dataset.images
    for each in manifest.classes:
        if dataset.per_class not in (None, each.count):
            raise UsageError(
                f"{dataset.name}: class {each.name} has {each.count} images, expected {dataset.per_class};"
                " prepare the dataset again"
            )
    if total not in (None, manifest.images):
        raise UsageError(f"{dataset.name}: {manifest.images} images, expected {total}; prepare it again")


def verify_store(found: ImageStore, known: Mapping[str, Dataset], tell: ReportProgress) -> None:
    """Require that a store has the pixels that were written, and the classes of its split list.

    Args:
        found: The store.
        known: The datasets whose split lists are known, by name. The classes of other stores are not checked.
        tell: As for `prepare`.

    Raises:
        UsageError: They are not.
    """
    name = found.manifest.name
    if name in known and found.manifest.split in known[name].splits:
        require_split(known[name], found.manifest)
    _verify_pixels(found, tell)


def _verify_pixels(found: ImageStore, tell: ReportProgress) -> None:
    path = found.folder / found.manifest.file
    size = path.stat().st_size
    found.verify(lambda done: tell(f"checksum of {path}", done, size))


def find_stores(home: Path, warn: Callable[[str], None]) -> list[ImageStore]:
    """Return every store under a folder, as `home/NAME/SIZE`.

    Args:
        home: The folder.
        warn: Called with one line for each store that is damaged. It is left out.
    """
    found = []
    for path in sorted(home.glob(f"*/*/{MANIFEST}")):
        try:
            found.append(ImageStore.open(path.parent))
        except UsageError as error:
            warn(str(error))
    return found
