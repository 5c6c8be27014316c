"""A picture whose file ends before its pixels do is refused; Pillow leaves the rest of it blank."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from metalearn_benchmarks.tasks.images.store.conversion import open_picture

PNG_MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]
JPEGS = [
    {}, {"progressive": True}, {"subsampling": 0, "quality": 95}, {"restart_marker_rows": 1},
    {"optimize": True},
]  # fmt: skip


def photo(width, height, low=1):
    """Noise that is smooth enough for JPEG; nothing in it is black."""
    draw = np.random.default_rng(0)
    small = draw.integers(low, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def in_mode(mode):
    if mode == "I;16":
        return Image.fromarray(np.asarray(photo(24, 19).convert("L")).astype(np.uint16) * 250)
    return photo(24, 19).convert(mode)


def encoded(image, form, **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(data, change):
    """A PNG whose pixels, unpacked, are changed; all else of it is right."""
    found, packed, at = data[:8], b"", 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        elif kind == b"IEND":
            found += chunk(b"IDAT", zlib.compress(change(zlib.decompress(packed))))
        if kind != b"IDAT":
            found += data[at : at + 12 + length]
        at += 12 + length
    return found


def png_rows(data):
    """The pixels of a PNG, unpacked."""
    found = []
    png_with(data, lambda pixels: found.append(pixels) or pixels)
    return found[0]


def interlaced(width, height):
    """A grey PNG in seven passes, by hand: Pillow does not write them."""
    values, rows = (np.arange(width * height).reshape(height, width) % 255 + 1).astype(np.uint8), b""
    for top, left, down, across in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        part = values[top::down, left::across]
        rows += b"".join(b"\0" + row.tobytes() for row in part if part.size)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts, values


@pytest.mark.parametrize("mode", PNG_MODES)
@pytest.mark.parametrize("rows", [1, 10, 18])
def test_a_png_with_too_few_rows_is_refused(mode, rows):
    image = in_mode(mode)
    whole = encoded(image, "PNG")
    np.testing.assert_array_equal(np.asarray(open_picture(png_with(whole, bytes))), np.asarray(image))
    short = png_with(whole, lambda pixels: pixels[: len(pixels) // 19 * rows])
    with pytest.raises(ValueError, match=r"its pixels end after [\d,]+ of [\d,]+ bytes: the rest would be"):
        open_picture(short)


@pytest.mark.parametrize("size", [(24, 16), (1, 1), (3, 2), (5, 9)])
def test_an_interlaced_png_with_too_few_rows_is_refused(size):
    whole, values = interlaced(*size)
    np.testing.assert_array_equal(np.asarray(open_picture(whole)), values)
    rows = len(png_rows(whole))
    for kept in range(rows):
        # within a row Pillow sees it itself
        with pytest.raises((ValueError, OSError), match=r"its pixels end after|image file is truncated"):
            open_picture(png_with(whole, lambda pixels, kept=kept: pixels[:kept]))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", JPEGS, ids=str)
def test_a_jpeg_that_was_cut_and_closed_is_refused(mode, options):
    image = photo(160, 120).convert(mode)
    whole = encoded(image, "JPEG", **options)
    reference = Image.open(io.BytesIO(whole))
    np.testing.assert_array_equal(np.asarray(open_picture(whole)), np.asarray(reference))
    for part in (0.5, 0.8, 0.95):
        cut = whole[: int(part * len(whole))] + b"\xff\xd9"
        with pytest.raises((ValueError, OSError)):
            open_picture(cut)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", JPEGS, ids=str)
def test_a_whole_picture_that_ends_in_black_or_grey_is_taken(mode, options):
    for value in (0, 127, 128):
        image = photo(40, 30)
        image.paste((value,) * 3, (0, 15, 40, 30))
        image = image.convert(mode)
        whole = encoded(image, "JPEG", **options)
        reference = np.asarray(Image.open(io.BytesIO(whole)))
        for data in (whole, whole + b"more", whole[:-2] + bytes(100) + whole[-2:]):
            np.testing.assert_array_equal(np.asarray(open_picture(data)), reference)
        if mode != "CMYK":
            np.testing.assert_array_equal(np.asarray(open_picture(encoded(image, "PNG"))), np.asarray(image))
