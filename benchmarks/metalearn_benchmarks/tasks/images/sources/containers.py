"""Where files lie: a folder or an archive, read the same way. Nothing is ever unpacked to disk."""

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
HEAD = 512
KEPT = 1 << 22
"""Bytes: files of an archive up to this size that are no images are kept in memory: coming back is slow."""


DAMAGED = (
    EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, UnicodeDecodeError,
    NotImplementedError, RuntimeError,
)  # fmt: skip
"""What reading an archive raises where bytes of it are wrong or missing."""


class Files(Protocol):
    """Files under one root.

    Attributes:
        path: of the root.
        names: relative to the root, with `/`; in the order in which they are read fastest.
    """

    path: Path
    names: Sequence[str]

    def open(self, name: str) -> BinaryIO:
        """UsageError where it cannot be read."""
        ...

    def where(self, name: str) -> str:
        """A file's name for people."""
        ...

    def facts(self) -> Mapping[str, object]:
        """What tells this copy from another one: for the manifest."""
        ...


def read(files: Files, name: str) -> bytes:
    """A whole file; UsageError where it cannot be read."""
    with files.open(name) as file, reading(files.where(name)):
        return file.read()


def head(files: Files, name: str) -> bytes:
    """How a file begins."""
    with files.open(name) as file, reading(files.where(name)):
        return file.read(HEAD)


def is_image(name: str) -> bool:
    """Whether a file is taken for an image."""
    return name.lower().endswith(IMAGES)


def others(files: Files) -> list[str]:
    """What is no image: lists, pickles and the like."""
    return [name for name in files.names if not is_image(name)]


@contextmanager
def reading(where: Path | str) -> Iterator[None]:
    """In it, what the system or an archive's format refuses is a UsageError."""
    try:
        yield
    except OSError as error:  # a gzip file that is none is an OSError too
        raise UsageError(f"{where}: cannot be read ({error.strerror or error})") from error
    except DAMAGED as error:
        why = " ".join(str(error).split())
        raise UsageError(f"{where}: the archive is truncated or damaged ({why}); get it again") from error


def is_hidden(name: str) -> bool:
    """What systems leave behind: .DS_Store, ._image.jpg, __MACOSX."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class Folder:
    """A folder, with links followed; or one file of it."""

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
            yield from (name for name in found if not is_hidden(name))

    def open(self, name: str) -> BinaryIO:
        with reading(self.path / name):
            return open(self.path / name, "rb")

    def where(self, name: str) -> str:
        return str(self.path / name)

    def facts(self) -> Mapping[str, object]:
        """Names and sizes: to read every byte once more would take as long as to prepare them."""
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
    """Checksums of a file."""

    size: int
    md5: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Checksums:
        """Both in one reading."""
        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        with reading(path), open(path, "rb") as file:
            while chunk := file.read(KEPT):
                md5.update(chunk)
                sha256.update(chunk)
                size += len(chunk)
        return cls(size, md5.hexdigest(), sha256.hexdigest())
