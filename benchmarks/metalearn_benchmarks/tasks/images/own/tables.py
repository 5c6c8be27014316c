"""The reader of a user's own images in a table of paths and labels: CSV, TSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import attrs

from metalearn_benchmarks.tasks.images.own.labelled import LabelledImages, require_columns
from metalearn_benchmarks.tasks.images.sources.files import Files, Folder, is_image, read_file
from metalearn_core.errors import UsageError

SHOWN = 3


def is_text_table(name: str) -> bool:
    """Tell by its name whether a file is a table of text."""
    return name.lower().endswith((".csv", ".tsv"))


def read_text_table(files: Files, name: str) -> LabelledImages:
    """Read a CSV or TSV with a column of paths and one of labels, and perhaps one of splits.

    A path is relative to the folder of the table, or to `images/` beside it, or is a name that is there once.

    Raises:
        UsageError: A column is missing, the table is damaged, or images are not there.
    """
    where = files.where(name)
    try:
        text = read_file(files, name).decode("utf-8-sig")
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in text[:999] else ",")
        columns = list(table.fieldnames or ())
        rows = list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{where}: no table of text ({' '.join(str(error).split())})") from error
    return with_paths(files, name, columns, rows, "a table of paths and labels")


def with_paths(
    files: Files, name: str, columns: Sequence[str], rows: Sequence[Mapping[str, object]], form: str
) -> LabelledImages:
    """Find the images that the rows of a table name.

    Args:
        files: Where the table lies, with the images.
        name: The name of the table's file.
        columns: Its columns.
        rows: Its rows.
        form: Its form in words.

    Raises:
        UsageError: A column is missing, or images are not there. The message counts them.
    """
    where = files.where(name)
    image, label, split = require_columns(where, columns)
    if isinstance(files, Folder) and len(files.names) == 1:  # the table alone was given
        files = Folder(files.path)
    homes = _Homes(files, name.rpartition("/")[0])
    found, labels, splits, missing = [], [], [], []
    for row in rows:
        said, which = str(row.get(image) or "").strip(), str(row.get(label) or "").strip()
        place = homes.find(said, which) if said and which else None
        if place is None:
            missing.append(said or f"a row without {image if not said else label}")
            continue
        found.append(place)
        labels.append(which)
        splits.append(str(row[split]) if split and row.get(split) else None)
    if missing:
        raise UsageError(
            f"{where}: {len(missing)} of its {len(rows)} rows name no image that is there, such as"
            f" {', '.join(ascii(each)[1:-1][:60] for each in missing[:SHOWN])}; mend or remove them"
        )
    return LabelledImages(
        files.path,
        form,
        labels,
        splits,
        lambda row: (files.where(found[row]), read_file(files, found[row])),
        {**files.facts(), "table": name},
    )


@attrs.define
class _Homes:
    """Where the image of a row lies: never outside of the folder."""

    files: Files
    folder: str
    _names: set[str] = attrs.field(init=False)
    _by_base: dict[str, list[str]] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._names = {name for name in self.files.names if is_image(name)}
        for name in self._names:
            self._by_base.setdefault(name.rsplit("/", 1)[-1], []).append(name)

    def find(self, said: str, label: str) -> str | None:
        """Return the file that a row names, or None."""
        plain = said.replace("\\", "/").removeprefix("./")
        base = f"{self.folder}/" if self.folder else ""
        for place in (f"{base}{plain}", plain, f"{base}images/{plain}", f"{base}{label}/{plain}"):
            if place in self._names:
                return place
        same = self._by_base.get(plain.rsplit("/", 1)[-1], [])
        return same[0] if len(same) == 1 and "/" not in plain else None
