"""Archives of files, read in place: ZIP and tar, and several together."""

from __future__ import annotations

import io
import tarfile
import weakref
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import attrs

from metalearn_benchmarks.tasks.images.sources.containers import (
    HEAD,
    KEPT,
    Checksums,
    Files,
    Folder,
    is_hidden,
    is_image,
    others,
    reading,
)
from metalearn_core.errors import UsageError


class Archive(ABC):
    """What tar and zip archives share: members that lead out of the archive are refused, and their sums."""

    path: Path
    names: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sums = Checksums.of(path)

    @abstractmethod
    def open(self, name: str) -> BinaryIO: ...

    def where(self, name: str) -> str:
        return f"{self.path}: {name}"

    def facts(self) -> Mapping[str, object]:
        return {"name": self.path.name, **attrs.asdict(self.sums)}

    def require_inside(self, name: str) -> None:
        """UsageError for a member with an absolute path or one that climbs."""
        pure = name.replace("\\", "/")
        if pure.startswith("/") or pure[1:2] == ":" or ".." in pure.split("/"):
            raise UsageError(f"{self.path}: refused, its member {name!r} leads out of the archive")

    def require_plain(self, name: str, plain: bool) -> None:
        """UsageError for links and devices."""
        if not plain:
            raise UsageError(f"{self.path}: refused, its member {name!r} is a link or a device")


class Zip(Archive):
    """A zip archive."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with reading(path):
            self._zip = zipfile.ZipFile(path)
        weakref.finalize(self, self._zip.close)
        names = []
        for member in self._zip.infolist():
            self.require_inside(member.filename)
            mode = member.external_attr >> 16 & 0o170000
            self.require_plain(member.filename, mode in (0, 0o100000, 0o040000))
            if not member.is_dir() and not is_hidden(member.filename):
                names.append(member.filename)
        self.names = names

    def open(self, name: str) -> BinaryIO:
        with reading(self.where(name)):
            return cast(BinaryIO, self._zip.open(name))


class Tar(Archive):
    """A tar archive, compressed or not; going back in a compressed one starts from its beginning."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._members: dict[str, tarfile.TarInfo] = {}
        self._kept: dict[str, bytes] = {}
        with reading(path):
            self._tar = tarfile.open(path)  # noqa: SIM115 (it stays open as long as this object)
            weakref.finalize(self, self._tar.close)
            for member in self._tar:
                self._add(member)
        self.names = list(self._members)

    def _add(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./")
        self.require_inside(name)
        self.require_plain(name, member.isfile() or member.isdir())
        if not member.isfile() or is_hidden(name):
            return
        self._members[name] = member
        if not is_image(name) and member.size <= KEPT:
            file = self._tar.extractfile(member)
            assert file is not None  # it is a plain file
            self._kept[name] = file.read()

    def open(self, name: str) -> BinaryIO:
        if name in self._kept:
            return io.BytesIO(self._kept[name])
        with reading(self.where(name)):
            return cast(BinaryIO, self._tar.extractfile(self._members[name]))


class SeveralSources:
    """Several roots as one; what lies in each is found under the root's own name."""

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


def opened(path: Path) -> Files:
    """A folder, an archive by its content, or a file alone; UsageError where nothing is there."""
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    kind = _kind(path)
    return Folder(path.parent, path.name) if kind is None else kind(path)


def archives_in(folder: Folder) -> list[Archive]:
    """The archives that lie directly in a folder."""
    direct = [folder.path / name for name in others(folder) if "/" not in name]
    return [kind(path) for path in direct if (kind := _kind(path)) is not None]


def _kind(path: Path) -> type[Zip] | type[Tar] | None:
    """What a file is, by how it begins; None for what is no archive."""
    with reading(path), open(path, "rb") as file:
        start = file.read(HEAD)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Zip
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")) or start[257:262] == b"ustar":
        return Tar
    return None
