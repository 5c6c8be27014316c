"""Say in a few words what lies under a root: for whoever is told that it is not what was expected."""

from __future__ import annotations

from metalearn_benchmarks.tasks.images.sources.files import Files, is_image, read_head

MARKS = {
    b"PAR1": "a Parquet file", b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "a NumPy array",
    b"ARROW1": "an Arrow file",
    b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive", b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"MATLAB": "a MATLAB file", b"SQLite": "an SQLite database",
}  # fmt: skip
"""Formats that people have images in and that are not read, by their first bytes."""
SHOWN = 4
LOOKED_AT = 200
"""Files whose first bytes are looked at."""


def describe_files(files: Files) -> str:
    """Say what files are there: how many images, which tables, and formats that are not read."""
    images = [name for name in files.names if is_image(name)]
    others = [name for name in files.names if not is_image(name)]
    said = []
    if images:
        said.append(f"{len(images):,} images, such as {shown(images[0])}, in no folder named after a class")
    known = [found for name in others[:LOOKED_AT] if (found := _known(files, name))]
    said += known[:SHOWN]
    if len(known) > SHOWN:
        said.append(f"{len(known) - SHOWN} more of these")
    if others and not known:
        said.append(f"{len(others):,} other files, such as {shown(others[0])}")
    return "; ".join(said) or "no file at all"


def _known(files: Files, name: str) -> str:
    """A format that is not read, or the columns of a table; empty for anything else."""
    head = read_head(files, name)
    mark = next((words for begin, words in MARKS.items() if head.startswith(begin)), "")
    if mark:
        return f"{mark}, {shown(name)}"
    line = head.split(b"\n", 1)[0].strip().decode("utf-8-sig", "replace")
    if name.lower().endswith((".csv", ".tsv")) and line:
        return f"{shown(name)} with the columns {shown(line)}"
    return ""


def shown(text: str) -> str:
    """Text of a file for a message: short, in one line, without what a terminal would carry out."""
    return text.encode("unicode_escape").decode()[:80] if not text.isprintable() else text[:80]
