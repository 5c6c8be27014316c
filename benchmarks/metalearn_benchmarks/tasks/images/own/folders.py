"""The reader of a user's own images in folders: a folder for each class, below train, val and test or not."""

from __future__ import annotations

from collections.abc import Sequence

from metalearn_benchmarks.tasks.images.own.labelled import LabelledImages, split_of
from metalearn_benchmarks.tasks.images.sources.files import Files, is_image, read_file
from metalearn_core.errors import UsageError


def read_class_folders(files: Files) -> LabelledImages:
    """Read images whose folder is named after their class, as torchvision's ImageFolder has them.

    Raises:
        UsageError: No image lies in the folder of a class.
    """
    images = [name for name in files.names if is_image(name)]
    above = _common_folders(images)
    placed = [(name, _place(name.split("/")[above:-1])) for name in images]
    inside = [(name, place) for name, place in placed if place is not None]
    if not inside:
        raise UsageError(
            f"{files.path}: no folder of a class with images; put the images of each class into a folder"
            " named after it, or give a CSV of paths and labels"
        )
    outside = len(images) - len(inside)
    names = [name for name, _ in inside]
    return LabelledImages(
        files.path,
        "folders named after the classes",
        [label for _, (_, label) in inside],
        [split for _, (split, _) in inside],
        lambda row: (files.where(names[row]), read_file(files, names[row])),
        files.facts(),
        (f"{outside} images lie in no folder of a class, and are left out",) if outside else (),
    )


def _common_folders(images: Sequence[str]) -> int:
    """How many folders lie above everything, as in an archive that holds one folder."""
    paths = [name.split("/")[:-1] for name in images]
    depth = 0
    while paths and all(len(path) > depth + 1 for path in paths) and len({p[depth] for p in paths}) == 1:
        if split_of(paths[0][depth]):
            break
        depth += 1
    return depth


def _place(folders: Sequence[str]) -> tuple[str | None, str] | None:
    """The split that a folder names, and the class; None for an image in no folder of a class."""
    if folders and split_of(folders[0]):
        return (folders[0], folders[1]) if len(folders) > 1 else None
    return (None, folders[0]) if folders else None
