"""Files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from metalearn_core.errors import writing


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a whole file or none: a reader sees the old or the new one, also after a crash.

    Raises WriteError where the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
