"""The images of one split, looked up by number on the device that uses them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from metalearn_benchmarks.tasks.images.augmentation import apply_augmentation
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.manifest import ImageClass

LARGEST_ON_GPU = 4 << 30
"""Bytes. A split up to this size is kept on a GPU; of a larger one only the images that are used are sent."""


class SplitPixels:
    """The images 0, 1, 2, ... of a split, in the order of its classes.

    The file is mapped, not read, so that processes share its pages. Nothing that is written through `pixels`
    reaches the file.

    Args:
        store: The prepared images.
        classes: The classes of the split, in the order of the store.
    """

    def __init__(self, store: ImageStore, classes: list[ImageClass]) -> None:
        self.counts = torch.tensor([each.count for each in classes])
        self.firsts = self.counts.cumsum(0) - self.counts
        # mapped for writing into private pages: torch warns of an array that is read-only
        mapped = torch.from_numpy(
            np.load(store.folder / store.manifest.file, mmap_mode="c", allow_pickle=False)
        )
        runs = [mapped[each.first : each.first + each.count] for each in classes]
        together = all(a.first + a.count == b.first for a, b in pairwise(classes))
        start = classes[0].first
        self._rows = mapped[start : start + int(self.counts.sum())] if together else torch.cat(runs)
        self._on: dict[torch.device, Tensor] = {}

    @property
    def pixels(self) -> Tensor:
        """All images, uint8 `[images, channels, size, size]`. This is a view of the file, not a copy."""
        return self._rows.movedim(-1, 1)

    @property
    def labels(self) -> Tensor:
        """The class of each image within the split, int64 `[images]`."""
        return torch.arange(len(self.counts)).repeat_interleave(self.counts)

    def look_up(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """Look up the images of codes, on the device of the codes.

        Args:
            codes: int64 `[..., fields]`. A code is the number of an image, followed by the fields of an
                augmentation where there is one.
            dtype: The floating-point type of the images.

        Returns:
            Images in [0, 1], `[..., channels, size, size]`.
        """
        flat = codes.reshape(-1, codes.shape[-1])
        images = self._fetch(flat[:, 0]).movedim(-1, 1)
        if flat.shape[1] > 1:
            images = apply_augmentation(images, flat[:, 1:])
        shape = (*codes.shape[:-1], *images.shape[1:])
        return images.contiguous().to(dtype).div_(255).reshape(shape)

    def _fetch(self, numbers: Tensor) -> Tensor:
        device = numbers.device
        if device.type == "cpu":
            return self._rows.index_select(0, numbers)
        if self._rows.nbytes > LARGEST_ON_GPU:
            return self._rows.index_select(0, numbers.cpu()).to(device)
        if device not in self._on:
            self._on[device] = self._rows.to(device)
        return self._on[device].index_select(0, numbers)
