"""The reader of images with CSV lists of images and their classes: the usual form of miniImageNet."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import attrs

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.sources.files import Files, is_image, non_images, read_file, read_head
from metalearn_benchmarks.tasks.images.sources.image_source import ImageFiles
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_core.errors import UsageError

HEADERS = {
    ("filename", "label"): "CSVs with filename,label as Ravi & Larochelle's",
    ("class_name", "image_name"): "CSVs with class_name,image_name",
}


@attrs.frozen
class List:
    """One CSV list.

    Args:
        name: The name of its file.
        header: The names of its two columns.
        sha256: The checksum of the file.
        rows: The image and the class of each row.
    """

    name: str
    header: tuple[str, str]
    sha256: str
    rows: tuple[tuple[str, str], ...]


def read_csv(files: Files, dataset: Dataset, split: SplitList) -> ImageFiles | None:
    """Read a copy that has CSV lists.

    Returns:
        The images by class; None where there is no such list, or no image at all.

    Raises:
        UsageError: A list is damaged, or names an image that cannot be found.
    """
    images = [name for name in files.names if is_image(name)]
    lists = list(_lists(files)) if images else []
    if not lists:
        return None
    homes = _Homes(images)
    members: dict[str, list[str]] = defaultdict(list)
    parts: dict[str, set[str]] = defaultdict(set)
    for each in lists:
        for image, which in each.rows:
            if which in split.on_disk:
                members[which].append(homes.find(files.where(each.name), image, which))
                parts[each.name].add(which)
    notes = _notes(lists, dataset)
    if homes.ranked:
        notes.append(
            f"{homes.ranked} images were found by their rank among all that ImageNet has of a class: where"
            " this copy lacks some of those, they are the wrong ones"
        )
    return ImageFiles(
        files,
        HEADERS[lists[0].header],
        members,
        {part: frozenset(classes) for part, classes in parts.items()},
        [each.name for each in lists],
        notes,
    )


def _notes(lists: list[List], dataset: Dataset) -> list[str]:
    own = [each.name for each in lists if dataset.lists and each.header == ("filename", "label")]
    other = [each.name for each in lists if each.name in own and each.sha256 not in dataset.lists]
    if not other:
        return []
    return [f"{', '.join(other)}: not byte for byte the published list; its classes and counts are checked"]


def _lists(files: Files) -> Iterator[List]:
    """Every CSV with a header that is known, in whatever file it is."""
    for name in non_images(files):
        first = read_head(files, name).split(b"\n", 1)[0].strip().decode("utf-8-sig", "replace")
        header = next((one for one in HEADERS if first.replace(" ", "") == ",".join(one)), None)
        if header is None:
            continue
        data = read_file(files, name)
        try:
            table = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig")), skipinitialspace=True))
            image, which = ("filename", "label") if header[0] == "filename" else ("image_name", "class_name")
            rows = tuple((row[image].strip(), row[which].strip()) for row in table)
        except (ValueError, AttributeError, csv.Error) as error:
            raise UsageError(f"{files.where(name)}: no CSV with {','.join(header)} in every row") from error
        yield List(name, header, hashlib.sha256(data).hexdigest(), rows)


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

    def find(self, where: str, image: str, which: str) -> str:
        """UsageError where it is not there, in several places, named twice, or outside of the folder."""
        name = self._find(where, image, which)
        if name in self._taken:
            raise UsageError(
                f"{where} names {image} of class {which}, but {name} is taken for a row before it"
            )
        self._taken.add(name)
        return name

    def _find(self, where: str, image: str, which: str) -> str:
        if image.startswith("/") or ".." in image.split("/"):
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
