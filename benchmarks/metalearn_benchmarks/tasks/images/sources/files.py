"""Files under one root, read the same way from a folder and from an archive; and the folder."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

import attrs

from metalearn_core.errors import UsageError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm")
HEAD_BYTES = 512
LARGEST_FILE = 1 << 28
"""Bytes. No image and no list is larger."""
IN_MEMORY_BYTES = 1 << 22
"""Bytes. Files of an archive up to this size stay in memory, unless they are images: going back is slow."""


DAMAGED = (
    EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, UnicodeDecodeError,
    NotImplementedError, RuntimeError, OverflowError,
)  # fmt: skip
"""The errors of reading an archive whose bytes are wrong or missing."""


class Files(Protocol):
    """Files under one root.

    Attributes:
        path: The root.
        names: The names of the files relative to the root, with `/`, in the order in which reading is
            fastest.
    """

    path: Path
    names: Sequence[str]

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            UsageError: It cannot be read.
        """
        ...

    def where(self, name: str) -> str:
        """Return the name of a file for messages."""
        ...

    def facts(self) -> Mapping[str, object]:
        """Return what tells this copy from another one, for the manifest."""
        ...


def read_file(files: Files, name: str) -> bytes:
    """Read a whole file, an image or a list.

    Raises:
        UsageError: It cannot be read, or is larger than `LARGEST_FILE`.
    """
    with files.open(name) as file, reading(files.where(name)):
        data = file.read(IN_MEMORY_BYTES)
        if len(data) == IN_MEMORY_BYTES:
            data += file.read(LARGEST_FILE + 1 - IN_MEMORY_BYTES)
    if len(data) > LARGEST_FILE:
        raise UsageError(
            f"{files.where(name)}: refused, larger than {LARGEST_FILE >> 20} MiB: no image and no list is"
        )
    return data


def read_head(files: Files, name: str) -> bytes:
    """Read the first `HEAD_BYTES` bytes of a file.

    Raises:
        UsageError: It cannot be read.
    """
    with files.open(name) as file, reading(files.where(name)):
        return file.read(HEAD_BYTES)


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image."""
    return name.lower().endswith(IMAGES)


def non_images(files: Files) -> list[str]:
    """Return the names of the files that are no images: lists, pickles and the like."""
    return [name for name in files.names if not is_image(name)]


@contextmanager
def reading(where: Path | str) -> Iterator[None]:
    """Turn errors of the system and of archive formats into a UsageError.

    Args:
        where: The name of what is read, for the message.
    """
    try:
        yield
    except OSError as error:  # a gzip file that is none is an OSError too
        raise UsageError(f"{where}: cannot be read ({error.strerror or error})") from error
    except DAMAGED as error:
        why = " ".join(str(error).split())
        raise UsageError(f"{where}: the archive is truncated or damaged ({why}); get it again") from error


@contextmanager
def skipping(left_out: list[str]) -> Iterator[None]:
    """In it, a file that cannot be read is left out: one foreign file must not stand in a dataset's way.

    Args:
        left_out: Takes the reason.
    """
    try:
        yield
    except UsageError as error:
        left_out.append(str(error))


def is_hidden(name: str) -> bool:
    """Tell whether a file is one that systems leave behind: .DS_Store, ._image.jpg, __MACOSX."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class Folder:
    """The files of a folder, with links followed; or one file of it.

    Args:
        path: The folder.
        only: The name of the one file; None for all of them.
    """

    def __init__(self, path: Path, only: str | None = None) -> None:
        self.path = path
        with reading(path):
            self.names: Sequence[str] = [only] if only else sorted(self._walk())

    def _walk(self) -> Iterator[str]:
        seen: set[str] = set()

        def fail(error: OSError) -> None:
            raise error

        for folder, below, names in os.walk(self.path, followlinks=True, onerror=fail):
            here = os.path.realpath(folder)
            if here in seen:  # a link to a folder above
                below.clear()
                continue
            seen.add(here)
            place = PurePosixPath(Path(folder).relative_to(self.path).as_posix())
            found = (str(place / name) for name in names)
            # a pipe would be waited for, and a device may have no end
            yield from (name for name in found if not is_hidden(name) and (self.path / name).is_file())

    def open(self, name: str) -> BinaryIO:
        with reading(self.path / name):
            return open(self.path / name, "rb")

    def where(self, name: str) -> str:
        return str(self.path / name)

    def facts(self) -> Mapping[str, object]:
        """Return the checksum of names and sizes. Reading every byte would take as long as preparing them."""
        listing = hashlib.sha256()
        with reading(self.path):
            for name in self.names:
                listing.update(f"{name}\0{(self.path / name).stat().st_size}\n".encode())
        return {
            "name": self.path.name,
            "files": len(self.names),
            "sha256 of names and sizes": listing.hexdigest(),
        }


@attrs.frozen(eq=False)
class Checksums:
    """The size of a file in bytes, and its checksums."""

    size: int
    md5: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Checksums:
        """Compute both checksums of a file while reading it once."""
        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        with reading(path), open(path, "rb") as file:
            while chunk := file.read(IN_MEMORY_BYTES):
                md5.update(chunk)
                sha256.update(chunk)
                size += len(chunk)
        return cls(size, md5.hexdigest(), sha256.hexdigest())
