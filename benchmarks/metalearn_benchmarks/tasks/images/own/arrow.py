"""The reader of a user's own images in Parquet and Arrow files, as Hugging Face's `datasets` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.tasks.images.own.labelled import (
    LabelledImages,
    find_column,
    require_columns,
    split_of,
)
from metalearn_benchmarks.tasks.images.own.tables import with_paths
from metalearn_benchmarks.tasks.images.sources.files import Files, Folder
from metalearn_core.errors import UsageError

INFO = "dataset_info.json"


def is_arrow(name: str) -> bool:
    """Tell by its name whether a file is a table of Parquet or Arrow."""
    return name.lower().endswith((".parquet", ".arrow"))


def read_arrow(files: Files, names: list[str]) -> LabelledImages:
    """Read images in Parquet or Arrow files, each of which may be named after a split, or lie in its folder.

    An image is the bytes of its file, alone or as `{bytes, path}`; or a path, in a table of one file.

    Raises:
        UsageError: pyarrow is not installed, a file is damaged, or a column is missing.
    """
    if not isinstance(files, Folder):
        raise UsageError(f"{files.path}: unpack it, and give the folder: Parquet is read from folders alone")
    parts = [_Part.read(files.path / name, name) for name in names]
    images, label, split = require_columns(files.where(names[0]), parts[0].table.column_names)
    for part, name in zip(parts, names, strict=True):
        if (
            find_column(part.table.column_names, [images.lower()]) is None
            or label not in part.table.column_names
        ):
            raise UsageError(f"{files.where(name)}: its columns are not those of {names[0]}")
    if _holds_paths(parts[0].table, images):
        if len(parts) > 1:
            raise UsageError(f"{files.path}: several tables of paths; give one of them")
        rows = parts[0].table.to_pylist()
        for row in rows:
            row[label] = parts[0].label_name(label, row[label])
        return with_paths(files, names[0], parts[0].table.column_names, rows, "a table of paths and labels")
    places = [(part, row) for part in parts for row in range(part.table.num_rows)]

    def fetch(row: int) -> tuple[str, bytes]:
        part, inner = places[row]
        return f"{part.path}, row {inner}", part.image(images, inner)

    return LabelledImages(
        files.path,
        "Parquet or Arrow files with images, as Hugging Face's datasets has them",
        [part.label_name(label, one) for part in parts for one in part.table.column(label).to_pylist()],
        [one for part in parts for one in part.splits(split)],
        fetch,
        files.facts(),
    )


def _holds_paths(table: Any, column: str) -> bool:
    return str(table.schema.field(column).type) in ("string", "large_string")


@attrs.frozen(eq=False)
class _Part:
    """One file, with the names of its classes where they are known."""

    path: Path
    name: str
    table: Any
    class_names: Mapping[str, list[str]]

    @classmethod
    def read(cls, path: Path, name: str) -> _Part:
        """Read a file. An Arrow file stays on disk, and is mapped.

        Raises:
            UsageError: pyarrow is not installed, or the file is damaged.
        """
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UsageError(
                f"{path}: Parquet and Arrow need the package pyarrow ({error}): pip install pyarrow"
            ) from error
        try:
            if path.suffix.lower() == ".parquet":
                table = parquet.read_table(path)
            else:
                table = _read_arrow_file(pyarrow, path)
        except (pyarrow.ArrowException, OSError) as error:
            raise UsageError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})") from error
        return cls(path, name, table, _names_of_classes(table, path.parent))

    def splits(self, column: str | None) -> list[str | None]:
        """The split of each row: of its column, or of the file's name or folder."""
        if column is not None:
            return [None if one is None else str(one) for one in self.table.column(column).to_pylist()]
        *folders, base = self.name.split("/")
        words = [*reversed(folders), base.partition("-")[0].partition(".")[0]]
        named = next((word for word in words if split_of(word)), None)
        return [named] * int(self.table.num_rows)

    def label_name(self, column: str, value: object) -> str:
        """The name of a class, where the file knows the names of its numbers."""
        known = self.class_names.get(column, [])
        return known[value] if isinstance(value, int) and 0 <= value < len(known) else str(value)

    def image(self, column: str, row: int) -> bytes:
        """The bytes of an image."""
        value = self.table.column(column)[row].as_py()
        found = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(found, bytes):
            raise UsageError(f"{self.path}, row {row}: {column} holds no bytes of an image")
        return found


def _read_arrow_file(pyarrow: Any, path: Path) -> Any:
    source = pyarrow.memory_map(str(path))
    try:
        return pyarrow.ipc.open_stream(source).read_all()
    except pyarrow.ArrowInvalid:  # the other of its two forms
        return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()


def _names_of_classes(table: Any, folder: Path) -> dict[str, list[str]]:
    """The names of the classes by column, from the schema's metadata or from the file beside it."""
    features: Any = {}
    try:
        told = (table.schema.metadata or {}).get(b"huggingface")
        if told:
            features = json.loads(told)["info"]["features"]
        elif (folder / INFO).is_file():
            features = json.loads((folder / INFO).read_text(encoding="utf-8")).get("features", {})
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # then classes are called by their numbers
