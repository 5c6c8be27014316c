"""Random flips and crops of training images: numbers drawn with the task, applied on the task's device.

Not torchvision's: its transforms draw from the global generator, one draw for a whole batch, so that a task
would not be the same again; and these two are shorter than the repair that torchvision needs beside a CPU's
torch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

AUGMENTATIONS = ("none", "flip", "crop", "crop-flip")
FIELDS = 3
"""Of an image's draw: whether it is flipped (0 or 1), and the crop's first row and column."""


def margin(size: int) -> int:
    """By how many pixels an image is padded with zeros before a window of its old size is cut (4 of 32)."""
    return size // 8


def drawn(shape: torch.Size, augment: str, size: int, generator: torch.Generator) -> Tensor:
    """An independent draw for each image: int64 `[*shape, FIELDS]`."""
    flip = torch.randint(2, (*shape, 1), generator=generator)
    crop = torch.randint(2 * margin(size) + 1, (*shape, 2), generator=generator)
    if "flip" not in augment:
        flip = torch.zeros_like(flip)
    if "crop" not in augment:
        crop = torch.full_like(crop, margin(size))
    return torch.cat([flip, crop], -1)


def applied(images: Tensor, draws: Tensor) -> Tensor:
    """Images `[n, channels, size, size]`, each cut and flipped as its draw `[n, FIELDS]` says."""
    size = images.shape[-1]
    flip, top, left = draws[:, :, None].unbind(1)
    span = torch.arange(size, device=images.device)
    columns = torch.where(flip.bool(), span.flip(0), span) + left
    each = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[:, None, None]
    rows, columns = (span + top)[:, None, :, None], columns[:, None, None]
    return pad(images, [margin(size)] * 4)[each, channels, rows, columns]
