"""Prepared images on disk: uint8 pixels in one memory-mapped array, a class after another, and a manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import cattrs
import numpy as np
import numpy.typing as npt

from metalearn_core.errors import UsageError, unknown

FORMAT = 1
PIXELS, MANIFEST = "pixels.npy", "manifest.json"
SPLITS = ("train", "validation", "test")
CHUNK = 1 << 22
Pixels = npt.NDArray[np.uint8]


@attrs.frozen
class ImageClass:
    """A class and where its images lie: rows `first` ... `first + count - 1`.

    `split`: one of `SPLITS`.
    """

    name: str
    split: str
    first: int
    count: int


@attrs.frozen
class Manifest:
    """What a store holds and what it was made from.

    Args:
        name: of the dataset.
        split: of the list that says which class is in which split, for people.
        size: height and width of an image, in pixels.
        channels: 1 (grey) or 3 (RGB).
        classes: in the order of their rows.
        source: what it was made from: paths' names, checksums, versions, how images were resized.
        sha256: of the pixels' file; empty while it is being written.
    """

    name: str
    split: str
    size: int
    channels: int
    classes: tuple[ImageClass, ...]
    source: Mapping[str, Any]
    sha256: str = ""
    format: int = FORMAT

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(each.count for each in self.classes)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the pixels: `[images, size, size, channels]`."""
        return (self.images, self.size, self.size, self.channels)

    @classmethod
    def of(
        cls, name: str, split: str, size: int, channels: int,
        counts: Sequence[tuple[str, str, int]], source: Mapping[str, Any],
    ) -> Manifest:  # fmt: skip
        """Of `(class, split, images)`, in the order of the rows."""
        classes, first = [], 0
        for label, part, count in counts:
            classes.append(ImageClass(label, part, first, count))
            first += count
        return cls(name, split, size, channels, tuple(classes), dict(source))

    def as_json(self) -> str:
        return json.dumps(attrs.asdict(self), indent=1, ensure_ascii=False)


@attrs.frozen(eq=False)
class ImageStore:
    """Images that are ready to be sampled; their pixels are shared by all processes that open them.

    Args:
        pixels: uint8 `[images, size, size, channels]`, memory-mapped, read-only.
    """

    folder: Path
    manifest: Manifest
    pixels: Pixels

    @classmethod
    def open(cls, folder: Path) -> ImageStore:
        """UsageError where nothing whole is there; the pixels' checksum is `verify`'s to look at."""
        manifest = read_manifest(folder)
        path = folder / PIXELS
        try:
            pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read ({error}); prepare the dataset again") from error
        if pixels.dtype != np.uint8 or pixels.shape != manifest.shape:
            raise UsageError(
                f"{path}: expected uint8 {list(manifest.shape)}, found {pixels.dtype} {list(pixels.shape)};"
                " prepare the dataset again"
            )
        return cls(folder, manifest, pixels)

    def classes(self, split: str) -> list[ImageClass]:
        """Those of a split, in the order of their rows."""
        if split not in SPLITS:
            raise unknown(f"split of {self.manifest.name}", split, SPLITS)
        return [each for each in self.manifest.classes if each.split == split]

    def verify(self, tell: Callable[[int], None] = lambda done: None) -> None:
        """UsageError unless the pixels are those that were written; `tell`: bytes read so far."""
        found = checksum(self.folder / PIXELS, tell)
        if found != self.manifest.sha256:
            raise UsageError(
                f"{self.folder / PIXELS}: sha256 is {found}, expected {self.manifest.sha256}; it was damaged"
                " after it was prepared: prepare the dataset again"
            )


def read_manifest(folder: Path) -> Manifest:
    """UsageError for one that is missing, damaged or of a newer version."""
    path = folder / MANIFEST
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder}: no prepared images there; `metalearn data prepare` makes them"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); prepare the dataset again") from error
    if isinstance(plain, dict) and isinstance(plain.get("format"), int) and plain["format"] > FORMAT:
        raise UsageError(f"{path}: format {plain['format']}, this version reads up to {FORMAT}; upgrade it")
    try:
        return cattrs.structure(plain, Manifest)
    except Exception as error:  # cattrs raises groups of whatever went wrong
        raise UsageError(f"{path}: not a manifest of images; prepare the dataset again") from error


def checksum(path: Path, tell: Callable[[int], None] = lambda done: None) -> str:
    """sha256 of a file; `tell`: bytes read so far."""
    found, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            done += len(chunk)
            tell(done)
    return found.hexdigest()


def data_home() -> Path:
    """Where prepared datasets lie: `METALEARN_DATA`, or `metalearn` in the user's data folder."""
    told = os.environ.get("METALEARN_DATA")
    if told:
        return Path(told)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "metalearn"


def store_folder(name: str, size: int) -> Path:
    """Where a dataset lies at a size."""
    return data_home() / name / str(size)


class StoreWriter:
    """Fills a store class by class, in a folder beside it that becomes the store when all is there.

    What was cut off goes on with the first class that is not whole. One writer at a time: whoever
    opens a second one is responsible for a lock.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.staging = folder.with_name(f".{folder.name}.preparing")
        self._state = self.staging / "state.json"
        self._plan = hashlib.sha256(manifest.as_json().encode()).hexdigest()
        self.done = self._done()

    def _done(self) -> int:
        """How many classes an earlier writer of the same plan has finished."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            return int(state["done"]) if state["plan"] == self._plan else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def remaining(self) -> Iterator[ImageClass]:
        """Classes that are to be `put`, in order."""
        yield from self.manifest.classes[self.done :]

    def put(self, which: ImageClass, pixels: Pixels) -> None:
        """Write a class's images, uint8 `[count, size, size, channels]`; OSError as the system has it."""
        expected = (which.count, *self.manifest.shape[1:])
        if pixels.dtype != np.uint8 or pixels.shape != expected:
            raise ValueError(f"expected uint8 {list(expected)}, got {pixels.dtype} {list(pixels.shape)}")
        self._allocate()
        row = int(np.prod(self.manifest.shape[1:]))
        with open(self.staging / PIXELS, "r+b") as file:  # not through a map: a full disk must be an error
            file.seek(-(self.manifest.images - which.first) * row, os.SEEK_END)
            file.write(np.ascontiguousarray(pixels).data)
            file.flush()
            os.fsync(file.fileno())
        self.done = self.manifest.classes.index(which) + 1
        self._remember()

    def _allocate(self) -> None:
        """All the space there will be, at the start: a disk that is too small is noticed before the work."""
        path = self.staging / PIXELS
        if self.done and path.exists():
            return
        self.staging.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": self.manifest.shape}
            )
            os.posix_fallocate(file.fileno(), 0, file.tell() + int(np.prod(self.manifest.shape)))

    def _remember(self) -> None:
        temporary = self._state.with_suffix(".tmp")
        temporary.write_text(json.dumps({"plan": self._plan, "done": self.done}), encoding="utf-8")
        os.replace(temporary, self._state)

    def finish(self) -> ImageStore:
        """Make the store of what was written; an older store there is replaced."""
        if self.done != len(self.manifest.classes):
            raise ValueError(f"{len(self.manifest.classes) - self.done} classes are not written yet")
        whole = attrs.evolve(self.manifest, sha256=checksum(self.staging / PIXELS))
        (self.staging / MANIFEST).write_text(whole.as_json(), encoding="utf-8")
        self._state.unlink()
        older = self.folder.with_name(f".{self.folder.name}.older")
        if self.folder.exists():
            os.replace(self.folder, older)
        os.replace(self.staging, self.folder)
        _remove(older)
        return ImageStore.open(self.folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
