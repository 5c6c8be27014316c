"""Open an image of a stranger's file, and convert it to grey or RGB so that nothing is lost unsaid."""

from __future__ import annotations

import io
import warnings

import numpy as np
import PIL
from PIL import Image, ImageOps, WebPImagePlugin  # noqa: F401 (Pillow has not registered WebP else)

from metalearn_benchmarks.tasks.images.store.whole import require_whole

READ = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")
"""Formats of Pillow that are read. Others start programs (EPS), or are no pictures as datasets have them."""
LARGEST_PICTURE = 80_000_000
"""Pixels. The largest picture of ImageNet has 61 million."""
MODES = {1: "L", 3: "RGB"}
PLAIN = {1: ("L", "1"), 3: ("RGB",)}
"""By channels: the modes of Pillow that need no conversion worth telling."""
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
ORIENTATION = 0x0112
"""The tag of EXIF that says how a camera was held."""

TRANSPARENT = "with transparent parts, which are white now"
BLANK = "that are transparent everywhere, and blank now"
SCALED = "scaled from 16 bits to 8"
TURNED = "turned as their EXIF orientation says"
FIRST = "of which the first of several pictures in a JPEG file is taken"
LOSSES = (TRANSPARENT, BLANK, SCALED, TURNED, FIRST)
"""What changes more than the form of an image: it is told as a warning."""


def open_picture(data: bytes) -> Image.Image:
    """Open the file of a still image.

    Raises:
        ValueError: It is none of the formats that are read, is animated, is enormous, or is not whole.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its size, which is looked at here, and of damaged EXIF data
        try:
            image = Image.open(io.BytesIO(data), formats=READ)
        except PIL.UnidentifiedImageError as error:
            raise ValueError("no image: none of JPEG, PNG, BMP, GIF, WebP and PPM") from error
        width, height = image.size
        if width * height > LARGEST_PICTURE:
            raise ValueError(f"{width} x {height} pixels, more than {LARGEST_PICTURE:,}")
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise ValueError("it is animated: save the one picture that is meant")
        image.load()
    require_whole(image, data)
    return image


def convert_picture(
    image: Image.Image, channels: int, data: bytes = b""
) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert a picture to 8 bits a channel, upright, on white where it is transparent.

    Args:
        image: The picture.
        channels: 1 (grey) or 3 (RGB).
        data: The bytes of its file, where it has one.

    Returns:
        The picture, and in words what was done to it.

    Raises:
        ValueError: Its pixels are no grey values or colours, or it would become blank.
    """
    done = []
    upright = _upright(image)
    if upright is not image:
        done.append(TURNED)
    if image.format == "MPO":
        done.append(FIRST)
    mode, plain = upright.mode, upright
    if mode in (*SIXTEEN_BITS, "I"):
        plain = _scaled(upright)
    elif mode == "F":
        raise ValueError("its pixels are floating-point numbers, and nothing says which of them is white")
    if plain is not upright or (image.format == "PNG" and data[24:25] == b"\x10"):  # PNG's bits of a channel
        done.append(SCALED)
    if plain.has_transparency_data:
        plain, changed = _on_white(plain)
        done += changed
    if mode not in PLAIN[channels] and not done:
        done.append(f"converted from {mode}")
    converted = plain.convert(MODES[channels])
    if SCALED in done:
        _require_more_than_8_bits(upright, converted)
    return converted, tuple(done)


def _upright(image: Image.Image) -> Image.Image:
    """The picture as it was seen; the same object where it was so already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if image.getexif().get(ORIENTATION, 1) in range(2, 9):
                return ImageOps.exif_transpose(image)
        except Exception:  # damaged EXIF data, which says nothing
            return image
    return image


def _scaled(image: Image.Image) -> Image.Image:
    """16 bits as 8: 65535 is white. What is transparent stays so."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its pixels are integers beyond 16 bits, and nothing says which of them is white")
    grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _require_more_than_8_bits(image: Image.Image, converted: Image.Image) -> None:
    """ValueError for values of 8 bits in 16: scaled, they are black. What was black before may be."""
    grey = len(image.getbands()) == 1  # of others Pillow has kept the upper 8 bits
    most = int(np.asarray(image).max())
    if int(np.asarray(converted).max()) <= 1 and (most or not grey):
        largest = f" and none of its values is above {most}" if grey else ""
        raise ValueError(
            f"it has 16 bits a channel{largest}, so it would become black; save it with 8 bits a channel"
        )


def _on_white(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The picture on a white ground, and in words what was done to it."""
    picture = image.convert("RGBA")
    alpha = np.asarray(picture.getchannel("A"))
    least, most = int(alpha.min()), int(alpha.max())
    if least == 255:
        return picture.convert("RGB"), []
    white = Image.new("RGBA", picture.size, "white")
    opaque = Image.alpha_composite(white, picture).convert("RGB")
    if least != most and len(opaque.getcolors(1) or ()) == 1:
        raise ValueError("its strokes are as white as the ground that is put under transparent parts")
    return opaque, [TRANSPARENT if most else BLANK]
