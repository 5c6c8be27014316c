"""Choose the reader of a user's own images by what is there."""

from __future__ import annotations

from pathlib import Path

from metalearn_benchmarks.tasks.images.own.arrays import is_array, read_arrays
from metalearn_benchmarks.tasks.images.own.arrow import is_arrow, read_arrow
from metalearn_benchmarks.tasks.images.own.folders import read_class_folders
from metalearn_benchmarks.tasks.images.own.labelled import LabelledImages, joined, split_of
from metalearn_benchmarks.tasks.images.own.pickles import is_pickled, read_split_pickles
from metalearn_benchmarks.tasks.images.own.tables import is_text_table, read_text_table
from metalearn_benchmarks.tasks.images.sources.archives import open_files
from metalearn_benchmarks.tasks.images.sources.description import describe_files
from metalearn_benchmarks.tasks.images.sources.files import is_image, non_images
from metalearn_core.errors import UsageError

CACHES = "cache-"
"""What the Arrow files begin with that `datasets` keeps for itself."""


def read_own(path: Path) -> LabelledImages:
    """Read images of a user's own from a folder, an archive or a file.

    Tables and arrays come before folders named after classes, since these may be how images happen to lie.

    Raises:
        UsageError: There is nothing that is read. The message says what there is.
    """
    files = open_files(path)
    others = non_images(files)
    arrow = [name for name in others if is_arrow(name) and not name.split("/")[-1].startswith(CACHES)]
    arrays = [name for name in others if is_array(name)]
    texts = [name for name in others if is_text_table(name)]
    if arrow:
        return read_arrow(files, arrow)
    if arrays and not any(map(is_image, files.names)):
        return read_arrays(files, arrays)
    pickles = [name for name in others if is_pickled(files, name)]
    if pickles and not any(map(is_image, files.names)):
        return read_split_pickles(files, pickles)
    if len(texts) == 1:
        return read_text_table(files, texts[0])
    if len(texts) > 1 and all(split_of(_stem(name)) for name in texts):
        return joined([read_text_table(files, name) for name in texts], [_stem(name) for name in texts])
    if any(map(is_image, files.names)):
        return read_class_folders(files)
    if texts:
        raise UsageError(f"{path}: {len(texts)} tables, such as {texts[0]} and {texts[1]}; give one of them")
    raise UsageError(
        f"{path}: no images that are read; expected folders named after classes, a CSV or Parquet of paths"
        " and labels, a folder of Hugging Face's datasets, or arrays of images and labels in .npz or .npy;"
        f" found {describe_files(files)}"
    )


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
