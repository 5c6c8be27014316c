"""Folders: their names, and walking through them. Links are followed, and each folder is entered once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

_BRACKETS = str.maketrans("[]", "__")


def plain_name(name: str) -> str:
    """Return the name of a row or a setting as its folder has it: `turtle,hidden=_20,20_`.

    A shell, and `glob`, would read the brackets of `turtle,hidden=[20,20]` as a pattern.
    """
    return name.translate(_BRACKETS)


def find_files(directory: Path, wanted: Callable[[str], bool]) -> list[Path]:
    """Return the files below a folder, sorted by their path.

    A folder that is reached in several ways, by links or in a circle of links, is entered once: by the way
    without links where there is one.

    Args:
        directory: The folder. One that is not there, or that cannot be read, has no files.
        wanted: Says of a file's name whether it is looked for.
    """
    return sorted(_walk(directory, wanted))


def _walk(directory: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    folders, links, entered = [str(directory)], list[str](), set[tuple[int, int]]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        try:
            found = os.stat(here)
            entries = list(os.scandir(here))
        except OSError:
            continue
        if (found.st_dev, found.st_ino) in entered:
            continue
        entered.add((found.st_dev, found.st_ino))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif wanted(entry.name):
                yield Path(entry.path)
            elif entry.is_symlink() and entry.is_dir():
                links.append(entry.path)
