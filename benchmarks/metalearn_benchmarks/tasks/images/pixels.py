"""The images of one split, looked up by number on the device that wants them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from metalearn_benchmarks.tasks.images.augmentation import applied
from metalearn_benchmarks.tasks.images.store.manifest import ImageClass
from metalearn_benchmarks.tasks.images.store.store import ImageStore

KEPT = 4 << 30
"""Bytes of a split that a GPU may hold; of a larger one, what is asked for is sent over."""


class SplitPixels:
    """Images 0, 1, 2, ... of a split, in the order of its classes.

    Args:
        classes: of the split, in the store's order.

    The file is mapped, not read: processes share its pages, and nothing that is written through `pixels`
    reaches it.
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
        """All of them, uint8 `[images, channels, size, size]`; a view of the file, nothing is copied."""
        return self._rows.movedim(-1, 1)

    @property
    def labels(self) -> Tensor:
        """Which class of the split each image is of, int64 `[images]`."""
        return torch.arange(len(self.counts)).repeat_interleave(self.counts)

    def look_up(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """Images in [0, 1] `[..., channels, size, size]` for codes `[..., fields]`, on the codes' device.

        A code is an image's number, with an augmentation's draw behind it where there is one.
        """
        flat = codes.reshape(-1, codes.shape[-1])
        images = self._fetch(flat[:, 0]).movedim(-1, 1)
        if flat.shape[1] > 1:
            images = applied(images, flat[:, 1:])
        shape = (*codes.shape[:-1], *images.shape[1:])
        return images.contiguous().to(dtype).div_(255).reshape(shape)

    def _fetch(self, numbers: Tensor) -> Tensor:
        device = numbers.device
        if device.type == "cpu":
            return self._rows.index_select(0, numbers)
        if self._rows.nbytes > KEPT:
            return self._rows.index_select(0, numbers.cpu()).to(device)
        if device not in self._on:
            self._on[device] = self._rows.to(device)
        return self._on[device].index_select(0, numbers)
