"""Zip and tar archives, read in place, and several roots read as one. Nothing is unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import weakref
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import attrs

from metalearn_benchmarks.tasks.images.sources.bounds import Allowance, BoundedReader
from metalearn_benchmarks.tasks.images.sources.files import (
    HEAD_BYTES,
    IN_MEMORY_BYTES,
    Checksums,
    Files,
    Folder,
    is_hidden,
    is_image,
    non_images,
    reading,
    skipping,
)
from metalearn_core.errors import UsageError

UNPACKERS: Mapping[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
"""How a tar archive is compressed, by its first bytes."""
KEPT_BYTES = 1 << 28
"""Bytes of small files of a tar archive that are kept in memory, all together."""


class Archive(ABC):
    """What zip and tar archives share: their checksums, and the refusal of dangerous members.

    Raises:
        UsageError: The archive is damaged, a member leads out of it or is a link or a device, or it unpacks
            to far more than its size.
    """

    path: Path
    names: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sums = Checksums.of(path)
        self.allowance = Allowance(path, self.sums.size)

    @abstractmethod
    def open(self, name: str) -> BinaryIO: ...

    def where(self, name: str) -> str:
        return f"{self.path}: {name}"

    def facts(self) -> Mapping[str, object]:
        return {"name": self.path.name, **attrs.asdict(self.sums)}

    def require_inside(self, name: str) -> None:
        """Refuse a member with an absolute path, or with one that climbs out.

        Raises:
            UsageError: The member is one of those.
        """
        pure = name.replace("\\", "/")
        if pure.startswith("/") or pure[1:2] == ":" or ".." in pure.split("/"):
            raise UsageError(f"{self.path}: refused, its member {name!r} leads out of the archive")

    def require_plain(self, name: str, plain: bool) -> None:
        """Refuse a member that is a link or a device.

        Raises:
            UsageError: The member is not plain.
        """
        if not plain:
            raise UsageError(f"{self.path}: refused, its member {name!r} is a link or a device")


class ZipArchive(Archive):
    """A zip archive."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with reading(path):
            self._zip = zipfile.ZipFile(path)
        weakref.finalize(self, self._zip.close)
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            self.allowance.take(member.file_size)
            self.require_inside(member.filename)
            mode = member.external_attr >> 16 & 0o170000
            self.require_plain(member.filename, mode in (0, 0o100000, 0o040000))
            name = member.filename.replace("\\", "/")  # as some programs on Windows write it
            if not name.endswith("/") and not is_hidden(name):
                self._members[name] = member
        self.names = list(self._members)

    def open(self, name: str) -> BinaryIO:
        with reading(self.where(name)):
            return cast(BinaryIO, self._zip.open(self._members[name]))


class TarArchive(Archive):
    """A tar archive, compressed or not; going back in a compressed one starts from its beginning."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._members: dict[str, tarfile.TarInfo] = {}
        self._kept: dict[str, bytes] = {}
        self._room = KEPT_BYTES
        with reading(path):
            file = _unpacked(path)
            weakref.finalize(self, file.close)
            # it stays open as long as this object
            self._tar = tarfile.TarFile(fileobj=BoundedReader(file, self.allowance).as_file)
            for member in self._tar:
                self._add(member)
        self.names = list(self._members)

    def _add(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./")
        self.allowance.take(member.size)
        self.require_inside(name)
        self.require_plain(name, member.isfile() or member.isdir())
        if not member.isfile() or is_hidden(name):
            return
        self._members[name] = member
        if not is_image(name) and member.size <= min(IN_MEMORY_BYTES, self._room):
            self._room -= member.size
            file = self._tar.extractfile(member)
            assert file is not None  # it is a plain file
            self._kept[name] = file.read()

    def open(self, name: str) -> BinaryIO:
        if name in self._kept:
            return io.BytesIO(self._kept[name])
        with reading(self.where(name)):
            return cast(BinaryIO, self._tar.extractfile(self._members[name]))


def _unpacked(path: Path) -> BinaryIO:
    with open(path, "rb") as file:
        start = file.read(HEAD_BYTES)
    unpack = next((unpack for mark, unpack in UNPACKERS.items() if start.startswith(mark)), open)
    return cast(BinaryIO, unpack(path, "rb"))


class MergedFiles:
    """Several roots read as one. The name of a file begins with the name of its root.

    Args:
        path: The folder that holds the roots.
        parts: The roots.
    """

    def __init__(self, path: Path, parts: Sequence[Files]) -> None:
        self.path, self.parts = path, parts
        self._homes = {f"{part.path.name}/{name}": (part, name) for part in parts for name in part.names}
        self.names: Sequence[str] = list(self._homes)

    def open(self, name: str) -> BinaryIO:
        part, inner = self._homes[name]
        return part.open(inner)

    def where(self, name: str) -> str:
        part, inner = self._homes[name]
        return part.where(inner)

    def facts(self) -> Mapping[str, object]:
        return {"name": self.path.name, "parts": [dict(part.facts()) for part in self.parts]}


def open_files(path: Path) -> Files:
    """Open a folder, an archive (told by its content), or a file alone.

    Raises:
        UsageError: Nothing is there, or it cannot be read.
    """
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    if not path.is_file():  # a pipe would be waited for, and a device may have no end
        raise UsageError(f"{path}: neither a file nor a folder; give the dataset's folder, archive or pickle")
    kind = _archive_type(path)
    return Folder(path.parent, path.name) if kind is None else kind(path)


def archives_in(folder: Folder, left_out: list[str]) -> list[Archive]:
    """Open the archives that lie directly in a folder.

    Args:
        folder: The folder.
        left_out: Takes a line for each archive that cannot be read.
    """
    found: list[Archive] = []
    for name in non_images(folder):
        if "/" not in name:
            with skipping(left_out):
                path = folder.path / name
                kind = _archive_type(path)
                if kind is not None:
                    found.append(kind(path))
    return found


def _archive_type(path: Path) -> type[ZipArchive] | type[TarArchive] | None:
    """Tell the type of an archive by its first bytes; None for what is no archive."""
    with reading(path), open(path, "rb") as file:
        start = file.read(HEAD_BYTES)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ZipArchive
    if start.startswith(tuple(UNPACKERS)) or start[257:262] == b"ustar":
        return TarArchive
    return None
