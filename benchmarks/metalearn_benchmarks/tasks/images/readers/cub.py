"""The reader of CUB-200-2011 as published: images/ and the lists of images, of classes and of labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.sources.files import Files, read_file, skipping
from metalearn_benchmarks.tasks.images.sources.image_source import ImageFiles
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_core.errors import UsageError

LISTS = ("classes.txt", "images.txt", "image_class_labels.txt")


def read_cub(files: Files, dataset: Dataset, split: SplitList, left_out: list[str]) -> ImageFiles | None:
    """Read a copy that has the three lists of CUB-200-2011.

    Args:
        files, dataset, split: The copy, and what it must be.
        left_out: Takes a line for a list that is none.

    Returns:
        The images by class; None unless all three lists lie in one folder and name classes of the split list.

    Raises:
        UsageError: A list names an image that is not there.
    """
    names = set(files.names)
    roots = [name.removesuffix(LISTS[0]) for name in names if name.rsplit("/", 1)[-1] == LISTS[0]]
    roots = [root for root in roots if all(f"{root}{each}" in names for each in LISTS)]
    for root in sorted(roots):
        with skipping(left_out):
            classes, images, labels = (_pairs(files, f"{root}{each}") for each in LISTS)
            if set(classes.values()) & set(split.on_disk):
                break
    else:
        return None
    members: dict[str, list[str]] = defaultdict(list)
    for number, image in images.items():
        name = f"{root}images/{image}"
        if ".." in image.split("/") or name not in names:
            where = files.where(f"{root}{LISTS[1]}")
            raise UsageError(f"{where} names {image}, which is not in {root}images")
        which = classes.get(labels.get(number, ""), "")
        if which in split.on_disk:
            members[which].append(name)
    form = "CUB_200_2011 with its lists images.txt, classes.txt and image_class_labels.txt"
    return ImageFiles(files, form, members, {}, [f"{root}{each}" for each in LISTS])


def _pairs(files: Files, name: str) -> Mapping[str, str]:
    """Lines of a number and a word; UsageError for any other line."""
    found = {}
    for at, line in enumerate(read_file(files, name).decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if len(words) != 2:
            raise UsageError(f"{files.where(name)}, line {at}: expected a number and a word, found {line!r}")
        found[words[0]] = words[1]
    return found
