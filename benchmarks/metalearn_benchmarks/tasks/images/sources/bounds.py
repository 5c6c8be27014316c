"""How much an archive may unpack to: what is far more than images and lists ever do is refused."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, cast

from metalearn_core.errors import UsageError

LEAST_BOUND = 1 << 30
"""Bytes that any archive may unpack to."""
LARGEST_RATIO = 100
"""Times the size of its file. Images hardly become smaller in an archive, lists and arrays ten times."""
MEMBER_BYTES = 2048
"""What a member takes by itself, in memory."""


class Allowance:
    """The bytes that an archive may unpack to, all members together.

    Args:
        path: The archive.
        size: The size of its file, in bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.bound = max(LEAST_BOUND, LARGEST_RATIO * size)
        self._taken = 0

    def take(self, size: int) -> None:
        """Count a member.

        Raises:
            UsageError: All members together are too large.
        """
        self._taken += max(size, 0) + MEMBER_BYTES
        self.require(self._taken)

    def require(self, total: int) -> None:
        """Require that so many bytes are within the bound.

        Raises:
            UsageError: They are not.
        """
        if total > self.bound:
            raise UsageError(
                f"{self.path}: refused, it unpacks to more than {self.bound >> 20:,} MiB, which images and"
                " lists of its size never do; unpack it yourself and give the folder"
            )


class BoundedReader:
    """An unpacked stream that ends in an error where it is longer than it may be.

    Args:
        file: The stream.
        allowance: How long it may be.
    """

    def __init__(self, file: BinaryIO, allowance: Allowance) -> None:
        self._file, self._allowance = file, allowance
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        """Read as a file does.

        Raises:
            UsageError: The stream is too long.
        """
        left = max(self._allowance.bound - self._file.tell(), 0)
        data = self._file.read(left + 1 if size < 0 else min(size, left + 1))
        self._allowance.require(self._file.tell())
        return data

    @property
    def as_file(self) -> BinaryIO:
        """Itself, for functions that take files."""
        return cast(BinaryIO, self)
