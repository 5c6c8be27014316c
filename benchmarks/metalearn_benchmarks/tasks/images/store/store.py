"""Prepared images on disk: uint8 pixels in one memory-mapped array, a class after another, and a manifest."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import attrs
import cattrs
import numpy as np
import numpy.typing as npt

from metalearn_core import write_atomically
from metalearn_core.errors import UsageError, WriteError, unknown

FORMAT = 1
MANIFEST, LOCK = "manifest.json", ".lock"
PREPARING, STATE = "preparing.npy", "preparing.json"
SPLITS = ("train", "validation", "test")
CHUNK = 1 << 22
SAVE_SECONDS = 0.5
"""At most so much work is lost where a writer is killed."""
Pixels = npt.NDArray[np.uint8]


class NotPreparedError(UsageError):
    """A dataset that is not there: what does not need it can still be run."""


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
        tally: what was counted while it was made, such as images that were converted to RGB.
        sha256: of the pixels' file; empty while it is being written.
    """

    name: str
    split: str
    size: int
    channels: int
    classes: tuple[ImageClass, ...]
    source: Mapping[str, Any]
    tally: Mapping[str, int] = attrs.field(factory=dict)
    sha256: str = ""
    format: int = FORMAT

    @property
    def file(self) -> str:
        """Name of the pixels' file: a manifest can only ever be read with the pixels it was written for."""
        return f"pixels-{self.sha256[:16]}.npy"

    @property
    def plan(self) -> Manifest:
        """What was known before any pixel was written."""
        return attrs.evolve(self, tally={}, sha256="")

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
        path = folder / manifest.file
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
        path = self.folder / self.manifest.file
        try:
            found = checksum(path, tell)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error}); prepare the dataset again") from error
        if found != self.manifest.sha256:
            raise UsageError(
                f"{path}: sha256 is {found}, expected {self.manifest.sha256}; it was damaged after it was"
                " prepared: remove it and prepare the dataset again (glyphs make themselves when used)"
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
    """Fills a store class by class; it becomes readable, and what was there before goes, when all is there.

    What was cut off goes on with the classes that are not whole. The folder is this writer's from the first
    moment to `finish` or `close`; a second one is refused. Disks that are full are WriteErrors.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._pixels = folder / PREPARING
        self._plan = hashlib.sha256(manifest.as_json().encode()).hexdigest()
        self._rows = {which.name: which for which in manifest.classes}
        if len(self._rows) != len(manifest.classes):
            raise ValueError("two classes have one name")
        self._lock = weakref.finalize(self, os.close, _locked(folder))
        self.done: dict[str, dict[str, int]] = {}
        self._sha256 = ""
        self._read_state()
        self._saved = time.monotonic()

    def _read_state(self) -> None:
        """What an earlier writer of the same plan has finished: its classes, and what it counted in each."""
        try:
            state = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            whole = self.folder / f"pixels-{state['sha256'][:16]}.npy"
            if state["plan"] == self._plan and (self._pixels.exists() or whole.exists()):
                self.done, self._sha256 = dict(state["done"]), state["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return

    def remaining(self) -> Iterator[ImageClass]:
        """Classes that are to be `put`, in the order of their rows; any other order will do as well."""
        yield from [each for each in self.manifest.classes if each.name not in self.done]

    def put(self, which: ImageClass, pixels: Pixels, tally: Mapping[str, int] | None = None) -> None:
        """Write a class's images, uint8 `[count, size, size, channels]`, and what was counted in them."""
        expected = (which.count, *self.manifest.shape[1:])
        if self._rows.get(which.name) != which:
            raise ValueError(f"{which} is no class of this store")
        if pixels.dtype != np.uint8 or pixels.shape != expected:
            raise ValueError(f"expected uint8 {list(expected)}, got {pixels.dtype} {list(pixels.shape)}")
        row = int(np.prod(self.manifest.shape[1:]))
        with _writing(self._pixels):
            if not self.done or not self._pixels.exists():
                self._allocate()
            with open(self._pixels, "r+b") as file:  # not through a map: a full disk must be an error
                file.seek(-(self.manifest.images - which.first) * row, os.SEEK_END)
                file.write(np.ascontiguousarray(pixels).data)
        self.done[which.name] = dict(tally or {})
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._save()

    def _allocate(self) -> None:
        """All the space there will be, at the start: a disk that is too small is noticed before the work."""
        header = {"descr": "|u1", "fortran_order": False, "shape": self.manifest.shape}
        (self.folder / STATE).unlink(missing_ok=True)  # it speaks of pixels that go now
        try:
            with open(self._pixels, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                _reserve(file.fileno(), file.tell() + int(np.prod(self.manifest.shape)))
        except OSError:
            with suppress(OSError):
                self._pixels.unlink(missing_ok=True)
            raise

    def _save(self) -> None:
        """Remember what is done, and that only after it is on the disk."""
        if self._pixels.exists():
            with _writing(self._pixels), open(self._pixels, "r+b") as file:
                os.fsync(file.fileno())
        state = {"plan": self._plan, "done": self.done, "sha256": self._sha256}
        with _writing(self.folder):
            write_atomically(self.folder / STATE, json.dumps(state).encode())
        self._saved = time.monotonic()

    def finish(self) -> ImageStore:
        """Make the store of what was written; an older store there is replaced.

        The manifest's arrival is the one moment at which the store changes; what is interrupted before or
        after it is done by the next writer.
        """
        missing = sum(1 for _ in self.remaining())
        if missing or not self.done:
            raise ValueError(f"{missing} of {len(self.manifest.classes)} classes are not written yet")
        if not self._sha256:
            self._sha256 = checksum(self._pixels)
            self._save()
        tally = sum(map(Counter, self.done.values()), Counter[str]())
        whole = attrs.evolve(self.manifest, tally=dict(sorted(tally.items())), sha256=self._sha256)
        with _writing(self.folder):
            if self._pixels.exists():
                os.replace(self._pixels, self.folder / whole.file)
            write_atomically(self.folder / MANIFEST, whole.as_json().encode())
            (self.folder / STATE).unlink()
            for path in self.folder.glob("pixels-*.npy"):
                if path.name != whole.file:
                    path.unlink()
        self._lock()
        return ImageStore.open(self.folder)

    def close(self) -> None:
        """Remember what is done and let go of the folder; `finish` has done so already."""
        try:
            if self._lock.alive and self.done:
                self._save()
        finally:
            self._lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _locked(folder: Path) -> int:
    """A file that holds the folder's lock until it is closed; UsageError where another writer has it."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise UsageError(f"{folder}: another command is preparing it; wait until that has ended") from error
    return file


def _reserve(file: int, size: int) -> None:
    """Make a file so large, with space on the disk behind it where the system can promise that."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that makes no promises
                raise
    os.truncate(file, size)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """In it, what the system refuses is a WriteError that says what to do about images."""
    try:
        yield
    except (OSError, WriteError) as error:
        system = error if isinstance(error, OSError) else error.__cause__
        raise WriteError(
            f"{path}: cannot be written ({getattr(system, 'strerror', None) or error}); what is prepared is"
            " kept: make room and give the same command again, or prepare it in another place"
        ) from error
