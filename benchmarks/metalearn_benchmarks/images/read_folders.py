"""Images in folders that are named after their classes, however deep: ImageFolder, Omniglot, CUB unlisted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator

from metalearn_benchmarks.images.containers import Files, is_image
from metalearn_benchmarks.images.datasets import Dataset
from metalearn_benchmarks.images.sources import ImageFiles
from metalearn_benchmarks.images.splits import SplitList

SYNSET = 9
"""Characters of ImageNet's name of a class, n01532829, with which its images' names begin."""


def read_folders(files: Files, dataset: Dataset, split: SplitList) -> ImageFiles | None:
    """By the innermost folder that is a class; else by the class with which a file's name begins."""
    members: dict[str, dict[str, str]] = defaultdict(dict)
    parts: dict[str, set[str]] = defaultdict(set)
    twice = 0
    for name in filter(is_image, files.names):
        found = class_of(name, split.on_disk)
        if found is None:
            continue
        which, above = found
        base = name.rsplit("/", 1)[-1]
        twice += base in members[which]
        members[which].setdefault(base, name)
        if above:
            parts[above].add(which)
    if not members:
        return None
    return ImageFiles(
        files,
        "folders named after the classes",
        {which: [found[base] for base in sorted(found)] for which, found in members.items()},
        {part: frozenset(classes) for part, classes in parts.items()},
        notes=[f"{twice} images are there twice; each is taken once"] if twice else [],
    )


def class_of(name: str, classes: Container[str]) -> tuple[str, str] | None:
    """The class of an image by its path, and the folder above, "" at the root; None for another image."""
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
