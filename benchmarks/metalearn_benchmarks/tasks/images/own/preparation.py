"""Prepare images of a user's own: check every one, split the classes, and write the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np

from metalearn_benchmarks.tasks.images.own.labelled import LabelledImages
from metalearn_benchmarks.tasks.images.own.reading import read_own
from metalearn_benchmarks.tasks.images.own.splitting import Shares, split_classes
from metalearn_benchmarks.tasks.images.sources.image_source import RawImage
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_benchmarks.tasks.images.store import decoding
from metalearn_benchmarks.tasks.images.store.manifest import SPLITS, Manifest
from metalearn_benchmarks.tasks.images.store.preparation import PreparedStore, ReportProgress, write_store
from metalearn_core.errors import UsageError

FEWEST = 2
"""Images that a class must have to be kept: one to adapt to and one to be tested on."""
SHOWN = 3
TURNED = "/rot"
"""What the name of a class has that was turned, see `SplitList.parse_class_name`."""


@attrs.frozen(eq=False)
class OwnSource:
    """The images of the classes that are kept, as the writer of a store wants them.

    Args:
        labelled: The images as they were read.
        rows: The rows of each class.
    """

    labelled: LabelledImages
    rows: Mapping[str, Sequence[int]]

    def images(self, which: str) -> Iterator[tuple[str, RawImage]]:
        """Yield the images of a class."""
        yield from map(self.labelled.fetch, self.rows[which])

    def place(self, which: str) -> int:
        """Return the position of a class in the copy."""
        return self.rows[which][0]


@attrs.define
class _Checked:
    """What came of a look at every image.

    Args:
        rows: The rows of the images that can be decoded.
        broken: Why each of the others cannot be.
        grey: Whether no image has a colour.
    """

    rows: list[int] = attrs.field(factory=list)
    broken: list[str] = attrs.field(factory=list)
    grey: bool = True


def prepare_own(
    name: str, path: Path, folder: Path, size: int, shares: Shares, tell: ReportProgress
) -> PreparedStore:
    """Prepare images of a user's own.

    An image that cannot be decoded is left out, and so is a class with fewer than `FEWEST` images: both are
    counted and told. Where no image has a colour, all are kept as grey.

    Args:
        name: The name that the dataset will have.
        path: Where the images are.
        folder: The folder of the store.
        size: Height and width of an image, in pixels.
        shares: How classes are split where the copy does not say it.
        tell: Called with what is being done, how much of it is done, and how much there is if that is known.

    Raises:
        UsageError: There are no images that can be used, or too few classes. Then nothing is written.
        WriteError: The disk is full, or the folder cannot be written.
    """
    tell(f"reading {path}", 0, None)
    labelled = read_own(path)
    _require_plain_names(labelled)
    checked = _check(labelled, tell)
    by_class = defaultdict[str, list[int]](list)
    for row in checked.rows:
        by_class[labelled.labels[row]].append(row)
    small = sorted(which for which, rows in by_class.items() if len(rows) < FEWEST)
    kept = {which: rows for which, rows in sorted(by_class.items()) if len(rows) >= FEWEST}
    if not kept:
        raise UsageError(
            f"{path}: no class with {FEWEST} images that can be decoded"
            + (f"; {len(checked.broken)} cannot be, such as {checked.broken[0]}" if checked.broken else "")
        )
    split, notes = split_classes(labelled, [row for rows in kept.values() for row in rows], shares)
    notes = [*labelled.notes, *_left_out(checked.broken, small), *notes, *_smallest(kept, split)]
    classes = [(which, part, len(kept[which])) for which, part in split.classes.items()]
    source = {
        "dataset": name, "form": labelled.form,
        "split list": {"title": split.title, "source": split.source},
        "shares": list(shares.parts), "split seed": shares.seed,
        "left out": {"broken images": len(checked.broken), "small classes": len(small)},
        "from": dict(labelled.facts), **decoding.decoder_versions(),
    }  # fmt: skip
    manifest = Manifest.of(name, split.name, size, 1 if checked.grey else 3, classes, source)
    return write_store(folder, manifest, OwnSource(labelled, kept), tuple(notes), tell)


def _require_plain_names(labelled: LabelledImages) -> None:
    turned = next((which for which in labelled.labels if TURNED in which), None)
    if turned is not None:
        raise UsageError(
            f"{labelled.path}: class {turned!r:.60} has {TURNED} in its name, which is for turned classes;"
            " rename it"
        )


def _check(labelled: LabelledImages, tell: ReportProgress) -> _Checked:
    """Decode every image once, so that the store can be laid out before it is written."""
    found = _Checked()
    for row in range(len(labelled.labels)):
        tell("checking", row, len(labelled.labels))
        try:
            pixels, _ = decoding.decode_image(labelled.fetch(row), 8, 3)
        except UsageError as error:
            found.broken.append(str(error).removesuffix("; mend or replace it"))
            continue
        found.rows.append(row)
        found.grey = found.grey and bool(np.ptp(pixels.astype(np.int16), axis=-1).max() == 0)
    return found


def _left_out(broken: Sequence[str], small: Sequence[str]) -> Iterator[str]:
    if broken:
        yield f"{len(broken)} images cannot be decoded and are left out: {'; '.join(broken[:SHOWN])}"
    if small:
        yield (
            f"{len(small)} classes with fewer than {FEWEST} images are left out:"
            f" {', '.join(ascii(which)[1:-1][:40] for which in small[:SHOWN])}"
        )


def _smallest(kept: Mapping[str, Sequence[int]], split: SplitList) -> Iterator[str]:
    """What the number of classes and images allows a task to be."""
    for part in SPLITS:
        classes = split.parts[part]
        if classes:
            least = min(classes, key=lambda which: len(kept[which]))
            yield (
                f"{part}: {len(classes)} classes, the smallest ({ascii(least)[1:-1][:40]}) of"
                f" {len(kept[least])} images; so tasks may have {len(classes)} ways, and shots and queries of"
                f" {len(kept[least])} together"
            )
