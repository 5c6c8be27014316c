"""Characters of a font as grey images that can be compared between fonts: one cap height, one baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

FINER = 4
"""Drawn so many times larger and averaged: hinting for small sizes would bend what it draws."""
CAP, BASELINE, MARGIN = 0.5, 0.74, 0.03
"""Height of an H, where the baseline lies (from the top), and what stays empty at the sides, of the size."""
NOWHERE = "\U0010fffe"
"""No font has it: what is drawn for it is the font's sign for what it lacks."""
WEIGHT = 400
"""Of a variable font, where it has it."""
Image8 = npt.NDArray[np.uint8]


class Face:
    """A font file, drawn white on black."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.pixels = size * FINER
        _, top, _, _ = self._at(1000.0).getbbox("H", anchor="ls")
        self._usual = self._at(1000.0 * CAP * self.pixels / -top)
        self._lacking = self._draw(NOWHERE)

    def _at(self, size: float) -> ImageFont.FreeTypeFont:
        font = ImageFont.truetype(str(self.path), size, layout_engine=ImageFont.Layout.BASIC)
        try:
            axes = font.get_variation_axes()
        except OSError:  # not a variable font
            return font
        font.set_variation_by_axes(
            [
                min(max(WEIGHT, axis["minimum"] or 0), axis["maximum"] or WEIGHT)
                if axis["name"] in (b"Weight", "Weight")
                else axis["default"] or 0
                for axis in axes
            ]
        )
        return font

    def _draw(self, sign: str) -> Image8 | None:
        """The image `[size, size]`, or None for one without ink."""
        font, high = self._usual, BASELINE * self.pixels
        for _ in range(2):
            left, top, right, bottom = font.getbbox(sign, anchor="ls")
            if right <= left or bottom <= top:
                return None
            room = (1 - 2 * MARGIN) * self.pixels
            shrink = min(room / (right - left), high / max(-top, 1), (self.pixels - high) / max(bottom, 1), 1)
            if shrink == 1:
                break
            font = self._at(font.size * shrink * 0.99)
        canvas = Image.new("L", (self.pixels, self.pixels))
        centred = (self.pixels - right - left) / 2
        ImageDraw.Draw(canvas).text((centred, high), sign, 255, font, anchor="ls")
        drawn = np.asarray(canvas.reduce(FINER))
        return drawn if drawn.any() else None

    def draw(self, sign: str) -> Image8 | None:
        """The image `[size, size]`, or None where the font lacks the sign."""
        drawn = self._draw(sign)
        if drawn is None or (self._lacking is not None and np.array_equal(drawn, self._lacking)):
            return None
        return drawn


def near(image: Image8, others: Sequence[Image8], share: float) -> bool:
    """Whether it differs from one of the others by less than a share of the ink."""
    if not others:
        return False
    mine = image.astype(np.int64)
    theirs = np.stack(others).astype(np.int64)
    ink = np.maximum(mine.sum(), theirs.sum((1, 2)))
    return bool((np.abs(theirs - mine).sum((1, 2)) < share * ink).any())
