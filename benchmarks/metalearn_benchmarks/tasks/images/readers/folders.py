"""The reader of images in folders named after their classes, at any depth: ImageFolder, Omniglot, CUB."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.sources.files import Files, is_image
from metalearn_benchmarks.tasks.images.sources.image_source import ImageFiles
from metalearn_benchmarks.tasks.images.splits import SplitList

SYNSET = 9
"""Characters of ImageNet's name of a class, n01532829, with which its images' names begin."""


def read_folders(files: Files, dataset: Dataset, split: SplitList, left_out: list[str]) -> ImageFiles | None:
    """Read a copy whose folders are named after the classes.

    The innermost folder that is named after a class decides. Where there is none, the beginning of the file's
    name does.

    Args:
        files, dataset, split: The copy, and what it must be.
        left_out: As of the other readers; here nothing is left out.

    Returns:
        The images by class; None where no image has a class.
    """
    members: dict[str, list[str]] = defaultdict(list)
    parts: dict[str, set[str]] = defaultdict(set)
    for name in filter(is_image, files.names):
        found = class_of(name, split.on_disk)
        if found is None:
            continue
        which, above = found
        members[which].append(name)
        if above:
            parts[above].add(which)
    if not members:
        return None
    images = {which: _once(names, dataset.per_class) for which, names in members.items()}
    twice = sum(map(len, members.values())) - sum(map(len, images.values()))
    return ImageFiles(
        files,
        "folders named after the classes",
        images,
        {part: frozenset(classes) for part, classes in parts.items()},
        notes=[f"{twice} images are there twice; each is taken once"] if twice else [],
    )


def _once(names: list[str], expected: int | None) -> list[str]:
    """The images of a class by their own names, whatever folder they lie in.

    Of two in different folders with one name, the first: a whole copy may be there twice. Where only all of
    them are as many as there must be, they are different images, as those of CIFAR's two halves are.
    """
    own: dict[str, str] = {}
    for name in names:
        own.setdefault(name.rsplit("/", 1)[-1], name)
    if expected is not None and len(own) < expected == len(names):
        return sorted(names)
    return [own[base] for base in sorted(own)]


def class_of(name: str, classes: Container[str]) -> tuple[str, str] | None:
    """Find the class of an image by its path.

    Args:
        name: The path of the image, with `/`.
        classes: The names of the classes.

    Returns:
        The class and the folder above it, "" at the root; None for an image of no class.
    """
    folders = name.split("/")[:-1]
    for end in range(len(folders), 0, -1):
        for which, begin in _candidates(folders, end):
            if which in classes:
                return which, folders[begin - 1] if begin else ""
    synset = name.rsplit("/", 1)[-1][:SYNSET]
    return (synset, folders[-1] if folders else "") if synset in classes else None


def _candidates(folders: list[str], end: int) -> Iterator[tuple[str, int]]:
    """Folder names that may be a class, innermost first: one, or two as in Greek/character01."""
    if end >= 2:
        yield "/".join(folders[end - 2 : end]), end - 2
    yield folders[end - 1], end - 1
