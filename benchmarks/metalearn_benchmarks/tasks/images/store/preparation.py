"""From what a user has to a store of images: checked, decoded, resized, written; and checked again later."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.readers.detection import DetectedDataset, find
from metalearn_benchmarks.tasks.images.sources.containers import Checksums, Folder
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_benchmarks.tasks.images.store import decoding
from metalearn_benchmarks.tasks.images.store.manifest import MANIFEST, Manifest
from metalearn_benchmarks.tasks.images.store.store import ImageStore
from metalearn_benchmarks.tasks.images.store.writer import StoreWriter
from metalearn_core.errors import UsageError

ReportProgress = Callable[[str, int, int | None], None]
"""What is being done, how much of it, of how much if that is known."""


@attrs.frozen(eq=False)
class Prepared:
    """A store, and what people should know about what it was made from."""

    store: ImageStore
    notes: tuple[str, ...]
    already: bool = False


def prepare(
    dataset: Dataset, split: SplitList, path: Path, folder: Path, size: int, tell: ReportProgress,
    processes: int | None = None,
) -> Prepared:  # fmt: skip
    """Make the store `folder` of the copy at `path`, going on where an earlier call was cut off.

    UsageError for a copy that is not whole or not that dataset: nothing is written then.
    """
    tell(f"reading {path}", 0, None)
    found = find(dataset, split, path)
    manifest = plan(dataset, split, found, size)
    there = _store_at(folder)
    if there is not None and there.manifest.plan == manifest and _is_whole(there, tell):
        return Prepared(there, found.notes, already=True)
    with StoreWriter(folder, manifest) as writer:
        with decoding.decoder(manifest.images, size, dataset.channels, processes) as decode:
            _fill(writer, found, decode, tell)
        return Prepared(writer.finish(), found.notes)


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


def _fill(
    writer: StoreWriter, found: DetectedDataset, decode: decoding.Decoder, tell: ReportProgress
) -> None:
    """Every class that is missing, in the order in which they lie in the source."""
    disk = SplitList.untangle
    remaining = sorted(writer.remaining(), key=lambda each: found.source.place(disk(each.name)[0]))
    done = writer.manifest.images - sum(each.count for each in remaining)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # damaged EXIF data: no pixel depends on them
        for each in remaining:
            tell(each.name, done, writer.manifest.images)
            name, turns = disk(each.name)
            pixels, modes = decode(found.source.images(name))
            writer.put(each, np.rot90(pixels, turns, axes=(1, 2)), modes)
            done += each.count
    tell("checksum", done, writer.manifest.images)


def plan(dataset: Dataset, split: SplitList, found: DetectedDataset, size: int) -> Manifest:
    """All that is known of a store before its first pixel."""
    counts = found.source.counts
    classes = [(name, part, counts[SplitList.untangle(name)[0]]) for name, part in split.classes.items()]
    source: dict[str, Any] = {
        "dataset": dataset.title,
        "form": found.source.form,
        "split list": {"title": split.title, "source": split.source},
        "from": dict(found.files.facts()),
        **decoding.versions(),
    }
    if isinstance(found.files, Folder):
        source["lists"] = {
            name: attrs.asdict(Checksums.of(found.files.path / name)) for name in found.source.lists
        }
    return Manifest.of(dataset.name, split.name, size, dataset.channels, classes, source)


def require_split(dataset: Dataset, manifest: Manifest) -> None:
    """UsageError unless a store's classes and counts are those of its split list."""
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


def verify(found: ImageStore, known: Mapping[str, Dataset], tell: ReportProgress) -> None:
    """UsageError unless pixels are those written, and classes those of the split list where it is known."""
    name = found.manifest.name
    if name in known and found.manifest.split in known[name].splits:
        require_split(known[name], found.manifest)
    _verify_pixels(found, tell)


def _verify_pixels(found: ImageStore, tell: ReportProgress) -> None:
    path = found.folder / found.manifest.file
    size = path.stat().st_size
    found.verify(lambda done: tell(f"checksum of {path}", done, size))


def stores(home: Path) -> list[ImageStore]:
    """Every store under a place, `home/NAME/SIZE`; what is not whole is left out."""
    paths = sorted(home.glob(f"*/*/{MANIFEST}"))
    return [there for path in paths if (there := _store_at(path.parent)) is not None]
