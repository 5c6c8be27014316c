"""The reader of images with CSV lists of images and their classes: the usual form of miniImageNet."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping

import attrs

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.sources.files import (
    Files,
    is_image,
    non_images,
    read_file,
    read_head,
    skipping,
)
from metalearn_benchmarks.tasks.images.sources.image_source import ImageFiles
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_core.errors import UsageError

COLUMNS = {
    ("filename", "label"): "CSVs with filename,label as Ravi & Larochelle's",
    ("image_name", "class_name"): "CSVs with class_name,image_name",
}
"""The columns of an image and of its class, in whatever order and among whatever other columns."""


@attrs.frozen
class List:
    """One CSV list.

    Args:
        name: The name of its file.
        columns: The names of the columns of the image and of the class.
        sha256: The checksum of the file.
        rows: The image and the class of each row.
    """

    name: str
    columns: tuple[str, str]
    sha256: str
    rows: tuple[tuple[str, str], ...]


def read_csv(files: Files, dataset: Dataset, split: SplitList, left_out: list[str]) -> ImageFiles | None:
    """Read a copy that has CSV lists.

    Args:
        files, dataset, split: The copy, and what it must be.
        left_out: Takes a line for each list that is damaged, or that names an image that cannot be found.

    Returns:
        The images by class; None where there is no list that can be used, or no image at all.
    """
    images = [name for name in files.names if is_image(name)]
    if not images:
        return None
    homes = _Homes(images)
    members: dict[str, list[str]] = defaultdict(list)
    parts: dict[str, set[str]] = defaultdict(set)
    lists = []
    for name in non_images(files):
        with skipping(left_out):
            each = _read_list(files, name)
            if each is not None:
                for which, found in homes.find_all(files.where(name), each.rows, split.on_disk).items():
                    members[which] += found
                    parts[name].add(which)
                lists.append(each)
    if not lists:
        return None
    notes = _notes(lists, dataset)
    if homes.ranked:
        notes.append(
            f"{homes.ranked} images were found by their rank among all that ImageNet has of a class: where"
            " this copy lacks some of those, they are the wrong ones"
        )
    return ImageFiles(
        files,
        COLUMNS[lists[0].columns],
        members,
        {part: frozenset(classes) for part, classes in parts.items()},
        [each.name for each in lists],
        notes,
    )


def _notes(lists: list[List], dataset: Dataset) -> list[str]:
    own = [each.name for each in lists if dataset.lists and each.columns == ("filename", "label")]
    other = [each.name for each in lists if each.name in own and each.sha256 not in dataset.lists]
    if not other:
        return []
    return [f"{', '.join(other)}: not byte for byte the published list; its classes and counts are checked"]


def _read_list(files: Files, name: str) -> List | None:
    """The list in a file, whatever the file is called; None where it has no columns that are known.

    Raises:
        UsageError: The file has these columns, and is no whole CSV.
    """
    first = read_head(files, name).split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    try:
        header = [word.strip() for word in next(csv.reader([first.strip()], skipinitialspace=True), [])]
    except csv.Error:  # no text at all
        return None
    columns = next((pair for pair in COLUMNS if set(pair) <= set(header)), None)
    if columns is None:
        return None
    data = read_file(files, name)
    try:
        table = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), skipinitialspace=True)
        image, which = map(header.index, columns)
        next(table)
        rows = tuple((row[image].strip(), row[which].strip()) for row in table if row)
    except (ValueError, IndexError, csv.Error) as error:
        raise UsageError(f"{files.where(name)}: no CSV with {','.join(columns)} in every row") from error
    return List(name, columns, hashlib.sha256(data).hexdigest(), rows)


RANKED = re.compile(r"(n\d{8})(\d{8})\.jpg", re.IGNORECASE)
"""A name in Ravi & Larochelle's lists: a class, and the rank of the image among ImageNet's of that class."""
IMAGENET = re.compile(r"(n\d{8})_(\d+)\.jpe?g", re.IGNORECASE)
"""A name in ImageNet: a class and a number, from 1 with gaps."""


class _Homes:
    """Where an image of a list lies: under images/, under its class, or anywhere else under its name.

    Where ImageNet itself is there, in place of renamed copies, images are found by their rank.
    """

    def __init__(self, images: list[str]) -> None:
        self._by_name: Mapping[str, list[str]] = defaultdict(list)
        numbered: Mapping[str, list[tuple[int, str]]] = defaultdict(list)
        for name in images:
            base = name.rsplit("/", 1)[-1]
            self._by_name[base].append(name)
            if found := IMAGENET.fullmatch(base):
                numbered[found[1]].append((int(found[2]), name))
        self._by_rank = {which: [name for _, name in sorted(found)] for which, found in numbered.items()}
        self._taken: set[str] = set()
        self.ranked = 0
        """Images that were found by their rank."""

    def _ranked(self, image: str) -> list[str]:
        parts = RANKED.fullmatch(image)
        names = self._by_rank.get(parts[1], []) if parts else []
        found = names[int(parts[2]) - 1 :][:1] if parts and int(parts[2]) else []
        self.ranked += len(found)
        return found

    def find_all(
        self, where: str, rows: Iterable[tuple[str, str]], wanted: Container[str]
    ) -> Mapping[str, list[str]]:
        """Find the images of a list: those of each class that is wanted.

        Args:
            where: The name of the list in messages.
            rows: The image and the class of each row.
            wanted: The classes.

        Raises:
            UsageError: One is not there, is there several times, is in two rows, or lies outside of the
                folder. Then no image of the list is taken.
        """
        before = self._taken, self.ranked
        self._taken = set(self._taken)
        found: dict[str, list[str]] = defaultdict(list)
        try:
            for image, which in rows:
                if which in wanted:
                    found[which].append(self._take(where, image.replace("\\", "/"), which))  # as on Windows
        except UsageError:
            self._taken, self.ranked = before
            raise
        return found

    def _take(self, where: str, image: str, which: str) -> str:
        name = self._find(where, image, which)
        if name in self._taken:
            raise UsageError(
                f"{where} names {image} of class {which}, but {name} is taken for a row before it"
            )
        self._taken.add(name)
        return name

    def _find(self, where: str, image: str, which: str) -> str:
        if image.startswith("/") or image[1:2] == ":" or ".." in image.split("/"):
            raise UsageError(f"{where} names {image}, which leads out of the folder: refused")
        base = image.rsplit("/", 1)[-1]
        found = self._by_name.get(base) or self._ranked(base)
        if len(found) == 1:
            return found[0]
        for ending in (image, f"{which}/{image}", f"images/{image}"):
            exact = [name for name in found if f"/{name}".endswith(f"/{ending}")]
            if len(exact) == 1:
                return exact[0]
        problem = f"is there {len(found)} times" if found else "is not there"
        raise UsageError(f"{where} names {image} of class {which}, which {problem}")
