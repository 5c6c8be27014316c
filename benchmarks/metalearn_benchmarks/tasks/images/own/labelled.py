"""What every reader of a user's own images gives: rows of images with labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.tasks.images.sources.image_source import RawImage
from metalearn_core.errors import UsageError

SPLIT_WORDS = {
    "train": "train", "training": "train", "base": "train", "meta-train": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "meta-val": "validation", "test": "test", "testing": "test", "novel": "test", "meta-test": "test",
}  # fmt: skip
"""What people call a split, in folders, in columns and in files."""
IMAGE_COLUMNS = (
    "image", "images", "img", "path", "image_path", "img_path", "filepath", "file_path", "filename",
    "file_name", "image_name", "file", "x", "data",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "category", "target", "targets", "fine_label", "species", "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "partition", "subset", "phase", "set")


@attrs.frozen(eq=False)
class LabelledImages:
    """Images with their labels, in the order in which they lie.

    Args:
        path: What was read.
        form: Its form in words.
        labels: The name of the class of each image.
        splits: The split that the copy names for each image, as it writes it; None where it names none.
        fetch: Returns the name of an image for messages, and its file or its pixels, by its row.
        facts: What tells this copy from another one, for the manifest.
        notes: What the user should know about the copy.
    """

    path: Path
    form: str
    labels: Sequence[str]
    splits: Sequence[str | None]
    fetch: Callable[[int], tuple[str, RawImage]]
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def split_of(word: str) -> str | None:
    """Return the split that a word such as `val` means, or None."""
    return SPLIT_WORDS.get(word.strip().lower())


def find_column(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the column that has the first of the known names, whatever its case; None where none has."""
    by_name = {column.strip().lower(): column for column in columns}
    return next((by_name[name] for name in known if name in by_name), None)


def require_columns(where: str, columns: Sequence[str]) -> tuple[str, str, str | None]:
    """Return the columns of the image, of its label, and of its split, which may be missing.

    Raises:
        UsageError: The first or the second is missing. The message has the columns that are there.
    """
    image, label = find_column(columns, IMAGE_COLUMNS), find_column(columns, LABEL_COLUMNS)
    if image is None or label is None:
        what, known = ("image", IMAGE_COLUMNS) if image is None else ("label", LABEL_COLUMNS)
        there = ", ".join(ascii(column)[1:-1][:30] for column in columns[:8])
        raise UsageError(
            f"{where}: no column of the {what}s; name it {known[0]} (or {', '.join(known[1:4])}, ...);"
            f" its columns are {there or 'none'}"
        )
    return image, label, find_column(columns, SPLIT_COLUMNS)


def joined(parts: Sequence[LabelledImages], words: Sequence[str]) -> LabelledImages:
    """Join the lists of several splits of one copy.

    Args:
        parts: The images of each list.
        words: What each list calls its split.
    """
    places = [(part, row) for part in parts for row in range(len(part.labels))]

    def fetch(row: int) -> tuple[str, RawImage]:
        part, inner = places[row]
        return part.fetch(inner)

    return LabelledImages(
        parts[0].path,
        parts[0].form,
        [label for part in parts for label in part.labels],
        [word for part, word in zip(parts, words, strict=True) for _ in part.labels],
        fetch,
        {**parts[0].facts, "tables": [part.facts["table"] for part in parts]},
    )
