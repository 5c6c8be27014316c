"""Datasets of ten classes that installed packages bring.

They have too few classes to train on, so all their classes are test classes.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt

from metalearn_benchmarks.tasks.images.store.building import ManifestAndPixels, load_or_build
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.locations import store_folder
from metalearn_benchmarks.tasks.images.store.manifest import Manifest, Pixels
from metalearn_core.errors import UsageError

DEBIAN = "/usr/share/datasets/fashion-mnist"
CLOTHES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
LARGEST_FILE = 1 << 28
"""Bytes that an unpacked file of Fashion-MNIST may have; the real ones have at most 47 million."""


@attrs.frozen
class Digits:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, enlarged; white on black."""

    name = "digits"
    splits = ("test",)

    def __call__(self, size: int) -> ImageStore:
        """Open the images at a size, in pixels. The first use prepares them.

        Raises:
            UsageError: scikit-learn or Pillow is missing.
        """
        return load_or_build(store_folder(self.name, size), lambda: self._made(size))

    def _made(self, size: int) -> ManifestAndPixels:
        try:
            import PIL
            import sklearn
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise UsageError(
                f"digits need scikit-learn and Pillow ({error}): in the checkout,"
                " pip install -e './benchmarks[images]'"
            ) from error
        data = load_digits()
        images = (np.asarray(data.images) * (255 / 16)).round().astype(np.uint8)
        labels = np.asarray(data.target)
        of_class = {str(label): _resized(images[labels == label], size) for label in range(10)}
        return _test_split_only(
            self.name, size, of_class, {"scikit-learn": sklearn.__version__, "pillow": PIL.__version__}
        )


@attrs.frozen
class FashionMnist:
    """Fashion-MNIST: 70,000 photographs of clothes, training and test files together; white on black.

    Args:
        files: The folder with its four files `*-ubyte.gz`. Debian's package puts them into `DEBIAN`.
    """

    files: Path
    name = "fashion-mnist"
    splits = ("test",)

    def __call__(self, size: int) -> ImageStore:
        """Open the images at a size, in pixels. The first use prepares them.

        Raises:
            UsageError: Files are missing, or are not what they should be.
        """
        return load_or_build(store_folder(self.name, size), lambda: self._made(size))

    def _made(self, size: int) -> ManifestAndPixels:
        pairs = [
            [self.files / f"{p}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
            for p in ("train", "t10k")
        ]
        read = [(read_idx(images, 3), read_idx(labels, 1)) for images, labels in pairs]
        for (images, labels), (path, _) in zip(read, pairs, strict=True):
            if (
                len(images) != len(labels)
                or images.shape[1:] != (28, 28)
                or set(np.unique(labels)) != set(range(10))
            ):
                raise UsageError(
                    f"{path}: expected images of 28 x 28 pixels and a label 0 ... 9 for each; found "
                    f"{images.shape}"
                    f" and {len(labels)} labels"
                )
        images, labels = (np.concatenate(parts) for parts in zip(*read, strict=True))
        of_class = {name: _resized(images[labels == label], size) for label, name in enumerate(CLOTHES)}
        sums = {path.name: _sha256(path) for pair in pairs for path in pair}
        return _test_split_only(self.name, size, of_class, sums)


def read_idx(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """Read a packed file of bytes in MNIST's format: 0, 0, 8, the number of axes, their lengths, the bytes.

    Args:
        path: The file, packed by gzip.
        axes: How many axes the array must have.

    Raises:
        UsageError: The file is missing, damaged, or has other axes.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise UsageError(
            f"{path}: not there; `apt-get install dataset-fashion-mnist` puts it into {DEBIAN}, or name the "
            "folder"
            " that has it with the family's option `files`"
        ) from error
    except (OSError, EOFError) as error:
        raise UsageError(f"{path}: cannot be unpacked ({error}); fetch it again") from error
    start = 4 + 4 * axes
    shape = np.frombuffer(data[4:start], ">u4") if len(data) >= start else np.zeros(axes)
    if data[:4] != bytes([0, 0, 8, axes]) or len(data) != start + int(np.prod(shape, dtype=np.int64)):
        raise UsageError(f"{path}: not a whole file of {axes} axes in MNIST's format; fetch it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape.astype(int))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _resized(images: npt.NDArray[np.uint8], size: int) -> Pixels:
    """`[n, h, w]` as `[n, size, size, 1]`."""
    if images.shape[1:] == (size, size):
        return images[..., None]
    from PIL import Image

    return np.stack(
        [np.asarray(Image.fromarray(each).resize((size, size), Image.Resampling.BICUBIC)) for each in images]
    )[..., None]


def _test_split_only(
    name: str, size: int, images: dict[str, Pixels], source: dict[str, str]
) -> ManifestAndPixels:
    counts: Iterable[tuple[str, str, int]] = [(label, "test", len(each)) for label, each in images.items()]
    return Manifest.of(name, "all in test", size, 1, list(counts), source), images
