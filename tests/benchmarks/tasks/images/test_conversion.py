"""What becomes of images in every mode: the pixels that a person would see, or a refusal by name."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib

import image_copies as copies
import numpy as np
import pytest
from PIL import Image

from metalearn_benchmarks.tasks.images.store import conversion
from metalearn_benchmarks.tasks.images.store.decoding import decode_image
from metalearn_core.errors import UsageError

SIZE = 28
STROKE = np.zeros((SIZE, SIZE), bool)
STROKE[5:20, 9:13] = True


def encoded(image, form="PNG", **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def decoded(data, channels=1, size=SIZE):
    pixels, done = decode_image(("x.png", data), size, channels)
    return pixels, done


def on_white(values, alpha):
    """What is seen of grey values on a white ground, in floats."""
    return values * (alpha / 255.0) + 255 * (1 - alpha / 255.0)


def grey_of(mode, alpha):
    """Black strokes whose ground is transparent, in a mode, as a file."""
    black = np.zeros((SIZE, SIZE), np.uint8)
    if mode in ("RGBA", "LA"):
        bands = [black] * (len(mode) - 1) + [alpha]
        return encoded(Image.fromarray(np.stack(bands, -1), mode))
    if mode == "P":
        image = Image.fromarray((alpha == 0).astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 0, 0, 0])
        return encoded(image, transparency=1)
    if mode == "GIF":
        image = Image.fromarray((alpha == 0).astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 0, 0, 9])
        return encoded(image, "GIF", transparency=1)
    image = Image.fromarray(np.where(alpha == 0, 7, 0).astype(np.uint8))
    if mode == "RGB":
        return encoded(image.convert("RGB"), transparency=(7, 7, 7))
    return encoded(image, transparency=7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "GIF", "RGB", "L"])
def test_black_strokes_on_a_transparent_ground_are_black_on_white(mode, channels):
    data = grey_of(mode, np.where(STROKE, 255, 0).astype(np.uint8))
    pixels, done = decoded(data, channels)
    np.testing.assert_array_equal(pixels, np.where(STROKE, 0, 255)[..., None].repeat(channels, -1))
    assert done == (conversion.TRANSPARENT,)


def test_half_transparent_parts_are_mixed_with_white():
    draw = np.random.default_rng(0)
    values, alpha = draw.integers(0, 256, (2, SIZE, SIZE), dtype=np.uint8)
    pixels, done = decoded(encoded(Image.fromarray(np.stack([values, alpha], -1), "LA")))
    np.testing.assert_allclose(pixels[..., 0], on_white(values, alpha), atol=1.01)
    assert done == (conversion.TRANSPARENT,)


def test_what_is_opaque_in_an_alpha_channel_is_as_it_was():
    values = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    values[..., 3] = 255
    pixels, done = decoded(encoded(Image.fromarray(values, "RGBA")), 3)
    np.testing.assert_array_equal(pixels, values[..., :3])
    assert done == ("converted from RGBA",)


@pytest.mark.parametrize("channels", [1, 3])
def test_white_strokes_on_a_transparent_ground_are_refused(channels):
    """On white they would be seen no more, and on black all others."""
    values = np.full((SIZE, SIZE, 4), 255, np.uint8)
    values[..., 3] = np.where(STROKE, 255, 0)
    with pytest.raises(
        UsageError, match=r"x.png: cannot be decoded \(its strokes are as white as the ground"
    ):
        decoded(encoded(Image.fromarray(values, "RGBA")), channels)


RAMP = np.tile(np.arange(0, 65536, 2341, dtype=np.uint16)[:SIZE], (SIZE, 1))


def pgm(values, most):
    return b"P5 %d %d %d\n" % (*values.shape[::-1], most) + values.astype(">u2").tobytes()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["PNG", "PGM"])
def test_16_bits_of_grey_are_scaled(form, channels):
    data = encoded(Image.fromarray(RAMP)) if form == "PNG" else pgm(RAMP, 65535)
    pixels, done = decoded(data, channels)
    np.testing.assert_allclose(pixels[..., 0], RAMP / 257, atol=0.51)
    assert len(np.unique(pixels)) == SIZE
    assert done == (conversion.SCALED,)


def png16(values, kind, extra=b""):
    """A PNG of 16 bits a channel, `[h, w, channels]`, by hand: Pillow writes grey ones alone."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    high, wide = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", wide, high, 16, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def test_16_bits_of_a_colour_and_of_an_alpha_channel_are_told():
    values = np.random.default_rng(2).integers(0, 65536, (SIZE, SIZE, 3))
    pixels, done = decoded(png16(values, 2), 3)
    np.testing.assert_allclose(pixels, values / 257, atol=1)
    assert done == (conversion.SCALED,)
    grey = np.stack([values[..., 0], np.where(STROKE, 65535, 0)], -1)
    pixels, done = decoded(png16(grey, 4))
    np.testing.assert_allclose(pixels[..., 0], np.where(STROKE, values[..., 0] / 257, 255), atol=1)
    assert set(done) == {conversion.SCALED, conversion.TRANSPARENT}


def test_one_grey_value_of_16_bits_that_is_transparent():
    values = np.where(STROKE, 100, 513).astype(np.uint16)
    name = b"tRNS" + struct.pack(">H", 513)
    extra = struct.pack(">I", 2) + name + struct.pack(">I", zlib.crc32(name))
    pixels, done = decoded(png16(values[..., None], 0, extra))
    np.testing.assert_array_equal(pixels[..., 0], np.where(STROKE, 0, 255))
    assert set(done) == {conversion.SCALED, conversion.TRANSPARENT}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_plain_modes_are_as_pillow_has_them(mode, channels):
    picture = copies.photo(3, (SIZE, SIZE), "RGB").convert(mode)
    pixels, done = decoded(encoded(picture), channels)
    expected = np.asarray(picture.convert("L" if channels == 1 else "RGB")).reshape(SIZE, SIZE, channels)
    np.testing.assert_array_equal(pixels, expected)
    plain = ("1", "L") if channels == 1 else ("RGB",)
    assert done == (() if mode in plain else (f"converted from {mode}",))


def test_cmyk():
    picture = copies.photo(3, (SIZE, SIZE))
    pixels, done = decoded(encoded(picture.convert("CMYK"), "JPEG", quality=100, subsampling=0), 3)
    assert np.abs(pixels.astype(int) - np.asarray(picture)).max() < 12
    assert done == ("converted from CMYK",)


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_says_how_the_camera_was_held(form, tag):
    """The eight ways in which a picture may lie, from the standard."""
    values = np.zeros((20, 32, 3), np.uint8)
    values[:8, :16], values[:8, 16:], values[8:, :16] = 255, 160, 80
    lying = {
        1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1],
        5: values.swapaxes(0, 1), 6: np.rot90(values), 7: np.rot90(values.swapaxes(0, 1), 2),
        8: np.rot90(values, -1),
    }[tag]  # fmt: skip
    exif = Image.Exif()
    exif[conversion.ORIENTATION] = tag
    options = {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0}
    data = encoded(Image.fromarray(np.ascontiguousarray(lying)), form, exif=exif, **options)
    pixels, done = decoded(data, 3, 20)
    expected = np.asarray(Image.fromarray(values).resize((20, 20), Image.Resampling.BICUBIC))
    assert np.abs(pixels.astype(int) - expected).max() < 6
    assert done == ((conversion.TURNED,) if tag > 1 else ())


def frames():
    return [copies.photo(k, (SIZE, SIZE)) for k in range(3)]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_what_is_animated_is_refused(form):
    first, *rest = frames()
    with pytest.raises(UsageError, match="it is animated: save the one picture that is meant"):
        decoded(encoded(first, form, save_all=True, append_images=rest), 3)


def test_the_first_picture_of_a_jpeg_with_several_is_taken_and_told():
    first, *rest = frames()
    pixels, done = decoded(encoded(first, "MPO", save_all=True, append_images=rest), 3)
    np.testing.assert_array_equal(pixels, np.asarray(copies.as_jpeg(first)))
    assert done == (conversion.FIRST,)


def test_floats_are_refused():
    data = b"Pf\n2 2\n-1.0\n" + np.ones(4, "<f4").tobytes()
    with pytest.raises(UsageError, match="floating-point numbers, and nothing says which of them is white"):
        decoded(data, 3)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("form", ["EPS", "TIFF", "ICO", "PCX", "TGA", "PDF", "SGI", "text"])
def test_other_formats_are_refused_and_start_no_program(monkeypatch, form):
    def started(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    data = {"EPS": EPS, "text": b"hello"}.get(form) or encoded(frames()[0], form)
    with pytest.raises(UsageError, match="none of JPEG, PNG, BMP, GIF, WebP and PPM"):
        decoded(data, 3)


def test_a_picture_that_would_fill_the_memory_is_refused_before_it_does():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    name = b"IHDR" + header
    data = encoded(frames()[0])
    data = data[:8] + struct.pack(">I", 13) + name + struct.pack(">I", zlib.crc32(name)) + data[33:]
    with pytest.raises(UsageError, match=r"x.png: cannot be decoded \(.*pixels.*\)"):
        decoded(data, 3)
    with pytest.raises(UsageError, match=r"10000 x 9000 pixels, more than 80,000,000"):
        decoded(b"P4 10000 9000\n" + bytes(1250 * 9000), 3)


def test_what_was_lost_is_told_with_a_count_and_an_example(tmp_path):
    drawings = {which: [None, None] for which in copies.LETTERS}
    files = {}
    for at, which in enumerate(drawings):
        for k in range(2):
            alpha = np.where(STROKE, 255, 0 if at < 2 else 255).astype(np.uint8)
            alpha[at + k] = 255
            files[f"images/{which}/{at}_{k}.png"] = grey_of("LA", alpha)
    made = copies.ready(copies.OMNIGLOT, copies.write(tmp_path / "a", files), tmp_path / "out")
    manifest = made.store.manifest
    assert manifest.tally == {conversion.TRANSPARENT: 4, "converted from LA": 2}
    assert manifest.examples == {
        conversion.TRANSPARENT: str(tmp_path / "a/images/Greek/character01/0_0.png"),
        "converted from LA": str(tmp_path / "a/images/Latin/character01/2_0.png"),
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "GIF", "RGB", "L"])
def test_a_picture_that_is_transparent_everywhere_is_told(mode, channels):
    pixels, done = decoded(grey_of(mode, np.zeros((SIZE, SIZE), np.uint8)), channels)
    assert (pixels == 255).all()
    assert done == (conversion.BLANK,)
    assert conversion.BLANK in conversion.LOSSES


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["PNG", "PGM", "colours", "with an alpha channel"])
def test_8_bits_in_16_are_refused(form, channels):
    values = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE), dtype=np.uint16)
    values[0, 0] = 255
    data = {
        "PNG": lambda: encoded(Image.fromarray(values)),
        "PGM": lambda: pgm(values, 65535),
        "colours": lambda: png16(values[..., None].repeat(3, -1), 2),
        "with an alpha channel": lambda: png16(np.stack([values, np.full_like(values, 65535)], -1), 4),
    }[form]()
    most = " and none of its values is above 255" if form in ("PNG", "PGM") else ""
    with pytest.raises(UsageError) as caught:
        decoded(data, channels)
    assert str(caught.value) == (
        f"x.png: cannot be decoded (it has 16 bits a channel{most}, so it would become black; save it with 8"
        " bits a channel); mend or replace it"
    )


def test_what_is_black_or_dark_in_16_bits_is_taken():
    assert (decoded(encoded(Image.fromarray(np.zeros((SIZE, SIZE), np.uint16))))[0] == 0).all()
    dark = np.where(STROKE, 0, 600).astype(np.uint16)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(dark)))[0][..., 0], np.where(STROKE, 0, 2))
    strokes = np.stack([np.zeros((SIZE, SIZE), int), np.where(STROKE, 65535, 0)], -1)
    np.testing.assert_array_equal(decoded(png16(strokes, 4))[0][..., 0], np.where(STROKE, 0, 255))
