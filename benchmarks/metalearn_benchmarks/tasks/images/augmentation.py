"""Random flips and crops of training images: drawn with the task, applied on the task's device.

torchvision's transforms do not fit: they draw from the global generator, and one draw is for a whole batch. A
task would not be the same when it is drawn again.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

AUGMENTATIONS = ("none", "flip", "crop", "crop-flip")
FIELDS = 3
"""The fields of an augmentation: flipped or not (1 or 0), and the first row and column of the crop."""


def crop_margin(size: int) -> int:
    """The pixels of zeros around an image before a window of its old size is cut out (4 at size 32)."""
    return size // 8


def draw_augmentation(shape: torch.Size, augment: str, size: int, generator: torch.Generator) -> Tensor:
    """Draw an independent augmentation for each image.

    Args:
        shape: The shape of the images' numbers.
        augment: One of `AUGMENTATIONS`.
        size: Height and width of an image, in pixels.
        generator: The source of randomness.

    Returns:
        int64 `[*shape, FIELDS]`.
    """
    flip = torch.randint(2, (*shape, 1), generator=generator)
    crop = torch.randint(2 * crop_margin(size) + 1, (*shape, 2), generator=generator)
    if "flip" not in augment:
        flip = torch.zeros_like(flip)
    if "crop" not in augment:
        crop = torch.full_like(crop, crop_margin(size))
    return torch.cat([flip, crop], -1)


def apply_augmentation(images: Tensor, draws: Tensor) -> Tensor:
    """Cut and flip images `[n, channels, size, size]` as their draws `[n, FIELDS]` say."""
    size = images.shape[-1]
    flip, top, left = draws[:, :, None].unbind(1)
    span = torch.arange(size, device=images.device)
    columns = torch.where(flip.bool(), span.flip(0), span) + left
    each = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[:, None, None]
    rows, columns = (span + top)[:, None, :, None], columns[:, None, None]
    return pad(images, [crop_margin(size)] * 4)[each, channels, rows, columns]
