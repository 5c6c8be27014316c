"""Characters of a font as grey images: the same font size, and the same baseline, in every font."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

FINER = 4
"""Drawn so many times larger and averaged: hinting for small sizes would bend what it draws."""
EM, BASELINE, MARGIN = 0.72, 0.74, 0.03
"""Shares of the image: the font's size, where the baseline lies (from the top), what is empty at a side."""
NOWHERE = "\U0010fffe"
"""No font has it: what is drawn for it is the font's sign for what it lacks."""
Image8 = npt.NDArray[np.uint8]


class Face:
    """A font file, drawn white on black."""

    def __init__(self, path: Path, weight: int, size: int) -> None:
        self.path, self.weight, self.size = path, weight, size
        self.pixels = size * FINER
        self._usual = self._at(EM * self.pixels)
        self._lacking = self._draw(NOWHERE)

    def _at(self, size: float) -> ImageFont.FreeTypeFont:
        font = ImageFont.truetype(str(self.path), size, layout_engine=ImageFont.Layout.BASIC)
        try:
            axes = font.get_variation_axes()
        except OSError:  # not a variable font
            return font
        font.set_variation_by_axes(
            [
                min(max(self.weight, axis["minimum"] or 0), axis["maximum"] or self.weight)
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


class Drawings:
    """Images of which no two differ by less than a share of their ink."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.images: list[Image8] = []
        self._inks: list[int] = []

    def add(self, image: Image8) -> bool:
        """Add it, unless one that is nearly the same is there: then False."""
        ink = int(image.sum())
        for other, other_ink in zip(self.images, self._inks, strict=True):
            least = self.share * max(ink, other_ink)
            # images differ by at least what their sums differ by, and that is quickly known
            if abs(ink - other_ink) < least and np.abs(image.astype(np.int16) - other).sum() < least:
                return False
        self.images.append(image)
        self._inks.append(ink)
        return True
