"""The image families by name, each with the size of image that the literature uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from metalearn_benchmarks.tasks.images.datasets import Dataset, datasets
from metalearn_benchmarks.tasks.images.episodes import ImageFamily
from metalearn_benchmarks.tasks.images.glyphs.families import Glyphs
from metalearn_benchmarks.tasks.images.packaged import DEBIAN, Digits, FashionMnist
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_benchmarks.tasks.images.store.manifest import MANIFEST, SPLITS, NotPreparedError
from metalearn_benchmarks.tasks.images.store.store import ImageStore, store_folder


@attrs.frozen
class Prepared:
    """Opens what `metalearn data prepare` made of a dataset; `made_by`: with which arguments it does."""

    name: str
    made_by: str
    splits = SPLITS

    def __call__(self, size: int) -> ImageStore:
        """Raises NotPreparedError where it was not prepared at this size."""
        folder = store_folder(self.name, size)
        if not (folder / MANIFEST).exists():
            raise NotPreparedError(
                f"{self.name}: not prepared at {size} x {size} pixels (nothing in {folder}); where you have"
                f" its files: metalearn data prepare {self.made_by} --size {size}"
            )
        return ImageStore.open(folder)


def _prepared(dataset: Dataset, split: SplitList) -> Prepared:
    name = dataset.prepared_name(split)
    chosen = "" if name == dataset.name else f" --split {split.name}"
    return Prepared(name, f"{dataset.name} PATH{chosen}")


def fashion_mnist(
    ways: int = 5, shots: int = 1, queries: int = 16, size: int = 28, files: str = DEBIAN
) -> ImageFamily:
    """Fashion-MNIST, a target only; `files`: the folder with its four `*-ubyte.gz`."""
    return ImageFamily(FashionMnist(Path(files)), ways, shots, queries, size)


def digits(ways: int = 5, shots: int = 1, queries: int = 16, size: int = 28) -> ImageFamily:
    """scikit-learn's digits, a target only."""
    return ImageFamily(Digits(), ways, shots, queries, size)


def image_families() -> Mapping[str, Callable[..., Any]]:
    """Factories by name."""
    prepared = {
        dataset.prepared_name(split): partial(ImageFamily, _prepared(dataset, split), size=dataset.size)
        for dataset in datasets().values()
        for split in dataset.splits.values()
    }
    glyphs = {name: partial(ImageFamily, Glyphs(name)) for name in ("glyphs-print", "glyphs-display")}
    return {**prepared, **glyphs, "digits": digits, "fashion-mnist": fashion_mnist}
