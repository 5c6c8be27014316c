"""The writer of a store: one at a time, resumable, and the store is whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import attrs
import cattrs
import numpy as np
from filelock import BaseFileLock

from metalearn_benchmarks.host.locks import try_lock
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore, checksum
from metalearn_benchmarks.tasks.images.store.manifest import (
    MANIFEST,
    SHA256,
    ImageClass,
    Manifest,
    Pixels,
)
from metalearn_core import write_atomically
from metalearn_core.errors import UsageError, WriteError

LOCK = ".lock"

PREPARING, STATE = "preparing.npy", "preparing.json"

SAVE_SECONDS = 0.5
"""How often a writer saves what is done: a killed one loses at most this much work."""


class StoreWriter:
    """Writes a store class by class. The store becomes readable, and replaces an older one, when it is whole.

    A writer goes on where an earlier one of the same manifest was cut off, with the classes that are not
    whole. The folder belongs to this writer until `finish` or `close`.

    Args:
        folder: The folder of the store.
        manifest: What the store will hold.

    Raises:
        UsageError: Another writer has the folder.
        WriteError: The disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._pixels = folder / PREPARING
        self._plan = hashlib.sha256(manifest.as_json().encode()).hexdigest()
        self._rows = {which.name: which for which in manifest.classes}
        if len(self._rows) != len(manifest.classes):
            raise ValueError("two classes have one name")
        self._lock = weakref.finalize(self, _lock_folder(folder).release)
        self.done: dict[str, dict[str, int]] = {}
        self.examples: dict[str, str] = {}
        self._sha256 = ""
        self._read_state()
        self._saved = time.monotonic()

    def _read_state(self) -> None:
        """What an earlier writer of the same plan has finished: its classes, and what it counted in each."""
        try:
            state = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            done = cattrs.structure(state["done"], dict[str, dict[str, int]])
            sha256, examples = state["sha256"], cattrs.structure(state.get("examples", {}), dict[str, str])
            if sha256 and not SHA256.fullmatch(sha256):
                return  # it becomes part of a path
            whole = self.folder / f"pixels-{sha256[:16]}.npy"
            there = [path for path in (self._pixels, whole) if path.is_file() and not path.is_symlink()]
            if state["plan"] == self._plan and there and set(done) <= set(self._rows):
                self.done, self._sha256, self.examples = done, sha256, examples
        except Exception:  # whatever a damaged file leads to: then it begins anew
            return

    def remaining(self) -> Iterator[ImageClass]:
        """Yield the classes that are not written yet, in the order of their rows. Any order will do."""
        yield from [each for each in self.manifest.classes if each.name not in self.done]

    def put(
        self, which: ImageClass, pixels: Pixels, tally: Mapping[str, int] | None = None,
        examples: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Write the images of a class.

        Args:
            which: The class, one of the manifest.
            pixels: uint8 `[count, size, size, channels]`.
            tally: What was counted in them.
            examples: For each key of `tally`, the name of an image that was counted.

        Raises:
            WriteError: The disk is full, or the folder cannot be written.
            ValueError: The class or the pixels do not fit the manifest.
        """
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
        self.examples = {**(examples or {}), **self.examples}
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._save()

    def _allocate(self) -> None:
        """All the space there will be, at the start: a disk that is too small is noticed before the work."""
        header = {"descr": "|u1", "fortran_order": False, "shape": self.manifest.shape}
        (self.folder / STATE).unlink(missing_ok=True)  # it speaks of pixels that go now
        self._pixels.unlink(missing_ok=True)  # a link would lead out of the folder
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
        state = {
            "plan": self._plan, "done": self.done, "sha256": self._sha256, "examples": self.examples,
        }  # fmt: skip
        with _writing(self.folder):
            write_atomically(self.folder / STATE, json.dumps(state).encode())
        self._saved = time.monotonic()

    def finish(self) -> ImageStore:
        """Make the store of what was written, and replace an older store there.

        The store changes at one moment, when the manifest arrives. What is interrupted before or after that
        moment is completed by the next writer.

        Raises:
            WriteError: The disk is full, or the folder cannot be written.
            ValueError: Some classes are not written yet.
        """
        missing = sum(1 for _ in self.remaining())
        if missing or not self.done:
            raise ValueError(f"{missing} of {len(self.manifest.classes)} classes are not written yet")
        if not self._sha256:
            self._sha256 = checksum(self._pixels)
            self._save()
        tally = sum(map(Counter, self.done.values()), Counter[str]())
        examples = {what: self.examples[what] for what in sorted(tally) if what in self.examples}
        whole = attrs.evolve(
            self.manifest, tally=dict(sorted(tally.items())), sha256=self._sha256, examples=examples
        )
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
        """Save what is done, and release the folder. After `finish` this does nothing."""
        try:
            if self._lock.alive and self.done:
                self._save()
        finally:
            self._lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock_folder(folder: Path) -> BaseFileLock:
    """Take the lock of a folder; UsageError where another writer has it."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = try_lock(folder / LOCK)
    if lock is None:
        raise UsageError(f"{folder}: another command is preparing it; wait until that has ended")
    return lock


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
