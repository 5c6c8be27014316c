"""Whether the file of a picture holds all of its pixels. Pillow leaves blank in silence what is missing."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

END_OF_JPEG = b"\xff\xd9"
MORE_JPEG = bytes(range(1, 255)) * 4
"""What may stand between the last pixel of a JPEG file and its end, where no decoder looks."""
BLANK_IN_JPEG = {127, 128}
"""What missing blocks become; 127 in CMYK."""
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: the first column and row of each pass, and the steps between two of them."""
CHANNELS_OF_PNG = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def require_whole(image: Image.Image, data: bytes) -> None:
    """ValueError for a PNG or JPEG file whose pixels end before the picture does.

    Only a picture that looks like it is looked at more closely, so most pictures cost nothing. Of a JPEG
    file, less than the last block may be missing.

    Args:
        image: The picture, decoded.
        data: The bytes of its file.
    """
    if image.format == "PNG" and _png_rows_may_be_missing(image, data):
        wanted, found = _png_bytes(data)
        if found < wanted:
            raise ValueError(f"its pixels end after {found:,} of {wanted:,} bytes: the rest would be blank")
    if image.format == "JPEG" and _jpeg_blocks_may_be_missing(image) and _takes_more(image, data):
        raise ValueError("its pixels end before the picture does: the rest would be blank")


def _png_rows_may_be_missing(image: Image.Image, data: bytes) -> bool:
    interlaced = data[28:29] == b"\1"
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    return interlaced or not np.asarray(last_row).any()


def _png_bytes(data: bytes) -> tuple[int, int]:
    """How many bytes the pixels must have once they are unpacked, and how many of them there are."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    depth = bits * CHANNELS_OF_PNG.get(colour, 1)
    wanted = 0
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // across), -((top - height) // down)
        wanted += rows * (1 + (columns * depth + 7) // 8) if columns > 0 and rows > 0 else 0
    unpacker, found = zlib.decompressobj(), 0
    for packed in _png_pixels(data):
        try:
            found += len(unpacker.decompress(packed, wanted - found))
        except zlib.error:
            break
        if found >= wanted:
            break
    return wanted, found


def _png_pixels(data: bytes) -> Iterator[bytes]:
    """The packed pixels, chunk by chunk."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += 12 + length


def _jpeg_blocks_may_be_missing(image: Image.Image) -> bool:
    """Whether it ends in what a missing block becomes, or comes in scans, of which one may be cut."""
    last = image.getpixel((image.width - 1, image.height - 1))
    values = last if isinstance(last, tuple) else (last,)
    return "progressive" in image.info or set(values) <= BLANK_IN_JPEG


def _takes_more(image: Image.Image, data: bytes) -> bool:
    """Whether a decoder makes pixels of what is put before the end of the file: then some were missing."""
    end = data.rfind(END_OF_JPEG)
    if end < 0:
        return False
    while data[end - 1] == 0xFF:  # with what comes next, it would be a marker
        end -= 1
    try:
        more = Image.open(io.BytesIO(data[:end] + MORE_JPEG + data[end:]), formats=("JPEG",))
        more.load()
    except Exception:  # Pillow's decoders raise whatever bytes lead them to
        return True
    return more.tobytes() != image.tobytes()
