"""The image families by name, each with the size of image that the literature uses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.tasks.images.datasets import Dataset, datasets
from metalearn_benchmarks.tasks.images.episodes import ImageFamily
from metalearn_benchmarks.tasks.images.glyphs.families import Glyphs
from metalearn_benchmarks.tasks.images.own.names import own_names
from metalearn_benchmarks.tasks.images.packaged import DEBIAN, Digits, FashionMnist
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.locations import store_folder
from metalearn_benchmarks.tasks.images.store.manifest import MANIFEST, SPLITS, NotPreparedError


@attrs.frozen
class PreparedDataset:
    """Opens a dataset that `metalearn data prepare` has prepared.

    Args:
        name: The name of the prepared dataset.
        made_by: The arguments of `metalearn data prepare` that prepare it.
    """

    name: str
    made_by: str
    splits = SPLITS

    def __call__(self, size: int) -> ImageStore:
        """Open it at a size, in pixels.

        Raises:
            NotPreparedError: It was not prepared at this size.
        """
        folder = store_folder(self.name, size)
        if not (folder / MANIFEST).exists():
            raise NotPreparedError(
                f"{self.name}: not prepared at {size} x {size} pixels (nothing in {folder}); where you have"
                f" its files: metalearn data prepare {self.made_by} --size {size}"
            )
        store = ImageStore.open(folder)
        for doubt in store.manifest.doubts:
            warnings.warn(f"{folder}: {doubt}", stacklevel=2)
        return store


def _prepared(dataset: Dataset, split: SplitList) -> PreparedDataset:
    name = dataset.prepared_name(split)
    chosen = "" if name == dataset.name else f" --split {split.name}"
    return PreparedDataset(name, f"{dataset.name} PATH{chosen}")


def fashion_mnist(
    ways: int = 5, shots: int = 1, queries: int = 16, size: int = 28, files: str = DEBIAN
) -> ImageFamily:
    """Fashion-MNIST, which methods are only tested on.

    Args:
        ways, shots, queries, size: As for `ImageFamily`.
        files: The folder with its four files `*-ubyte.gz`.
    """
    return ImageFamily(FashionMnist(Path(files)), ways, shots, queries, size)


def digits(ways: int = 5, shots: int = 1, queries: int = 16, size: int = 28) -> ImageFamily:
    """scikit-learn's digits, which methods are only tested on. The arguments are those of `ImageFamily`."""
    return ImageFamily(Digits(), ways, shots, queries, size)


def image_families() -> Mapping[str, Callable[..., Any]]:
    """Return the factory of each image family, by name: known ones, and prepared ones of the user's own."""
    prepared = {
        dataset.prepared_name(split): partial(ImageFamily, _prepared(dataset, split), size=dataset.size)
        for dataset in datasets().values()
        for split in dataset.splits.values()
    }
    own = {
        name: partial(ImageFamily, PreparedDataset(name, f"{name} PATH"), size=sizes[0])
        for name, sizes in own_names().items()
    }
    glyphs = {name: partial(ImageFamily, Glyphs(name)) for name in ("glyphs-print", "glyphs-display")}
    return {**own, **prepared, **glyphs, "digits": digits, "fashion-mnist": fashion_mnist}
