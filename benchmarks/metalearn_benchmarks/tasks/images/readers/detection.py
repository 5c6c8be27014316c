"""Detect a dataset in what a user has, by content, and check that it is that dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.readers.csv_lists import read_csv
from metalearn_benchmarks.tasks.images.readers.cub import read_cub
from metalearn_benchmarks.tasks.images.readers.folders import read_folders
from metalearn_benchmarks.tasks.images.readers.named import read_named
from metalearn_benchmarks.tasks.images.readers.pickles import read_pickles
from metalearn_benchmarks.tasks.images.sources.archives import Archive, MergedFiles, archives_in, open_files
from metalearn_benchmarks.tasks.images.sources.description import describe_files
from metalearn_benchmarks.tasks.images.sources.files import Files, Folder, skipping
from metalearn_benchmarks.tasks.images.sources.image_source import ImageSource
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_core.errors import UsageError

READERS = (read_cub, read_csv, read_folders, read_pickles, read_named)
SHOWN = 3
SPLIT_PATTERNS = {
    "train": re.compile(r"(^|[^a-z])(train|base)", re.IGNORECASE),
    "validation": re.compile(r"(^|[^a-z])val", re.IGNORECASE),
    "test": re.compile(r"(^|[^a-z])(test|novel)", re.IGNORECASE),
}
"""What a file or folder is called that is meant to be a split."""


@attrs.frozen(eq=False)
class DetectedDataset:
    """A whole copy of a dataset, and where it lies.

    Args:
        files: The folder or the archives that hold it.
        source: Its images by class.
        notes: What the user should know about the copy.
    """

    files: Files
    source: ImageSource
    notes: tuple[str, ...]


def detect_dataset(dataset: Dataset, split: SplitList, path: Path) -> DetectedDataset:
    """Detect a dataset in a folder, an archive or a file.

    Args:
        dataset: The dataset that is wanted.
        split: The split list. Its classes must be there.
        path: The folder, archive or file.

    Raises:
        UsageError: The copy is not whole, or not that dataset; the message is one line.
    """
    failures: list[str] = []
    for files in _places(dataset, path, failures):
        with skipping(failures):
            _require_known(dataset, files)
            found = _read(dataset, split, files, failures)
            if found is not None:
                notes = (*found.notes, *_swapped(split, found), *_left_out(failures))
                return DetectedDataset(files, found, notes)
    if failures:
        raise UsageError(failures[0])
    raise UsageError(
        f"{path}: no {dataset.title} in it; expected {dataset.forms}"
        f" (from {dataset.home or 'wherever you have it'}); found {describe_files(open_files(path))}"
    )


def _read(dataset: Dataset, split: SplitList, files: Files, failures: list[str]) -> ImageSource | None:
    """The source of the first reader that finds the dataset whole; None where none does.

    Raises:
        UsageError: A reader finds the dataset, but a file that belongs to it is damaged.
    """
    for reader in READERS:
        left_out: list[str] = []
        source = reader(files, dataset, split, left_out)
        reasons: list[str] = []
        if source is not None:
            with skipping(reasons):
                _require_whole(dataset, split, source, files.path)
            if reasons and left_out and any(source.counts.values()):
                raise UsageError(left_out[0])  # why it is not whole
        failures += left_out + reasons
        if source is not None and not reasons:
            return source
    return None


def _left_out(reasons: list[str]) -> Iterator[str]:
    """What lies beside the dataset and is not read, in a few lines."""
    for reason in reasons[:SHOWN]:
        yield f"left out: {reason}"
    if len(reasons) > SHOWN:
        yield f"left out: {len(reasons) - SHOWN} more files"


def _places(dataset: Dataset, path: Path, failures: list[str]) -> Iterator[Files]:
    """Where to look, one after another: a folder itself, then the archives that lie in it."""
    files = open_files(path)
    yield files
    if isinstance(files, Folder) and path.is_dir():
        archives = archives_in(files, failures)
        known = [each for each in archives if each.sums.md5 in dataset.archives]
        archives = known or archives  # beside the dataset lie its segmentations, and the like
        if archives:
            yield archives[0] if len(archives) == 1 else MergedFiles(path, archives)


def _require_known(dataset: Dataset, files: Files) -> None:
    """UsageError for an archive that is not the published one, where only that one will do."""
    parts = files.parts if isinstance(files, MergedFiles) else [files]
    for part in parts:
        if dataset.closed and isinstance(part, Archive) and part.sums.md5 not in dataset.archives:
            known = " or ".join(f"{md5} ({title})" for md5, title in dataset.archives.items())
            raise UsageError(
                f"{part.path}: wrong checksum, md5 is {part.sums.md5}, expected {known}; get it again, or"
                " unpack it and give the folder"
            )


def _require_whole(dataset: Dataset, split: SplitList, source: ImageSource, path: Path) -> None:
    """UsageError unless every class is there with as many images as it must have."""
    missing = [which for which in split.on_disk if not source.counts.get(which)]
    if missing:
        raise UsageError(
            f"{path}: {len(missing)} of {len(split.on_disk)} classes of {split.title} are missing:"
            f" {_some(missing)} (found: {source.form})"
        )
    if dataset.per_class is not None:
        wrong = [which for which in split.on_disk if source.counts[which] != dataset.per_class]
        if wrong:
            others = f", and {len(wrong) - 1} other classes are wrong too" if len(wrong) > 1 else ""
            raise UsageError(
                f"{path}: class {wrong[0]} has {source.counts[wrong[0]]} images, expected"
                f" {dataset.per_class}{others} (found: {source.form})"
            )
    total = sum(source.counts.values())
    if dataset.images not in (None, total):
        raise UsageError(
            f"{path}: {total} images, expected {dataset.images} (found: {source.form}); is it whole?"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _swapped(split: SplitList, source: ImageSource) -> Iterator[str]:
    """Where a copy calls something by the name of another split: the classes decide, and that is said."""
    for part, classes in sorted(source.parts.items()):
        says = {name for name, pattern in SPLIT_PATTERNS.items() if pattern.search(part.rsplit("/", 1)[-1])}
        holds = {split.on_disk[which] for which in classes}
        if len(says) == 1 and says != holds:
            yield (
                f"{part}: holds classes of {' and '.join(sorted(holds))} in spite of its name; the classes"
                f" decide, after {split.title}"
            )
