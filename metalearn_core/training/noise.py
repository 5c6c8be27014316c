"""Random numbers that repeat: a function of a key and a place, in plain operations on tensors.

Threefry 2x32 with 20 rounds (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
2011). It is traced and compiled as anything else is, and gives the same bits eager, compiled and in batches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two words of 32 bits, in int64, for each key and counter, which are two words each."""
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    left, right = (counter[0] + keys[0]) & WORD, (counter[1] + keys[1]) & WORD
    for block in range(5):
        for places in ROTATIONS[block % 2]:
            left = (left + right) & WORD
            right = ((right << places | right >> (32 - places)) & WORD) ^ left
        left = (left + keys[(block + 1) % 3]) & WORD
        right = (right + keys[(block + 2) % 3] + block + 1) & WORD
    return left, right


def keyed_normal(keys: Tensor, count: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Draw standard normal numbers by keys, the same ones whenever and wherever a key is used.

    Args:
        keys: `[tasks]`, int64, at least 0: what the outer loop gives an outer gradient as `keys`.
        count: how many numbers for each key.
        dtype: of the numbers; None takes torch's default.

    Returns:
        `[tasks, count]`. A row depends on its own key alone.

    Example:
        >>> import torch
        >>> from metalearn_core import keyed_normal
        >>> both = keyed_normal(torch.tensor([7, 8]), 5)
        >>> torch.equal(both[1:], keyed_normal(torch.tensor([8]), 5))
        True
    """
    places = torch.arange((count + 1) // 2, device=keys.device)
    word = (keys >> 32) & WORD, keys & WORD
    left, right = threefry((word[0].unsqueeze(-1), word[1].unsqueeze(-1)), (places, torch.zeros_like(places)))
    # Box and Muller (1958); a half keeps the logarithm finite
    radius = (-2 * ((left.double() + 0.5) / 2**32).log()).sqrt()
    angle = 2 * math.pi * right.double() / 2**32
    drawn = torch.cat([radius * angle.cos(), radius * angle.sin()], -1)[..., :count]
    return drawn.to(torch.get_default_dtype() if dtype is None else dtype)
