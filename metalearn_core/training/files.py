"""Files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from metalearn_core.errors import writing

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a whole file or none: a reader sees the old or the new one, also after a crash.

    Of several processes that write the same file, one waits for the other; the last one's stays.

    Args:
        path: where to write; the folder exists.
        data: the whole contents.

    Raises:
        WriteError: where the disk is full or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from metalearn_core import write_atomically
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder, "result.txt"), b"0.75")
        ...     Path(folder, "result.txt").read_text()
        '0.75'
    """
    temporary = path.with_name(path.name + ".tmp")
    with writing(path), _alone(temporary) as file:
        try:
            file.truncate(0)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """A file that no other process writes meanwhile, as far as the file system has locks."""
    while True:
        with open(path, "ab") as file:
            if fcntl is not None:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
            # whoever had the lock before has renamed the file, or taken it away
            if _is_at(path, file):
                yield file
                return


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
