"""Decode images to uint8 pixels of one size: each is decoded once and resized once."""

from __future__ import annotations

import io
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Protocol

import numpy as np
import PIL
from PIL import Image

from metalearn_benchmarks.host.machine import cores
from metalearn_benchmarks.host.worker_lifetime import end_with_parent
from metalearn_benchmarks.tasks.images.sources.image_source import RawImage as RawImage
from metalearn_benchmarks.tasks.images.store.manifest import Pixels
from metalearn_core.errors import UsageError

MODES = {1: "L", 3: "RGB"}
PLAIN = {1: ("L", "1"), 3: ("RGB",)}
"""By channels: the modes of Pillow that need no conversion worth telling."""
PER_PROCESS = 2_000
"""Images that are worth a process of their own, which takes half a second to start."""
CHUNK = 32


def decoder_versions() -> Mapping[str, str]:
    """Return what decodes the images, and how they are resized, for the manifest."""
    return {
        "decoder": f"Pillow {PIL.__version__}",
        "resize": "bicubic, to a square; the aspect is not kept and nothing is cropped",
    }


def decode_image(given: tuple[str, RawImage], size: int, channels: int) -> tuple[Pixels, str]:
    """Decode one image.

    Args:
        given: Its name for messages, and the bytes of its file or its pixels.
        size: Height and width of the result, in pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 `[size, size, channels]`, and the mode that it was converted from, or "" for none.

    Raises:
        UsageError: It cannot be decoded.
    """
    name, data = given
    try:
        image = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else Image.fromarray(data)
        mode = image.mode
        image = image.convert(MODES[channels])
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
        reason = "no image" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
        raise UsageError(f"{name}: cannot be decoded ({reason}); mend or replace it") from error
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image).reshape(size, size, channels)
    return pixels, "" if mode in PLAIN[channels] else mode


class Decoder(Protocol):
    """Decodes images of one class to uint8 `[images, size, size, channels]`, and counts odd modes."""

    def __call__(self, images: Iterable[tuple[str, RawImage]]) -> tuple[Pixels, Mapping[str, int]]: ...


@contextmanager
def decoder(images: int, size: int, channels: int, processes: int | None = None) -> Iterator[Decoder]:
    """Provide a decoder inside a `with`, in as many processes as are worth their start.

    Args:
        images: How many images will be decoded.
        size: Height and width of the results, in pixels.
        channels: 1 (grey) or 3 (RGB).
        processes: How many processes; None decides by the number of images and of cores.
    """
    one = partial(decode_image, size=size, channels=channels)
    if processes is None:
        processes = min(cores(), images // PER_PROCESS)
    if processes <= 1:
        yield lambda given: _stacked(map(one, given))
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent)
    # Ctrl-C is for this process alone: the others are born deaf to it, all at the first thing to do
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        pool.submit(int)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    try:
        yield lambda given: _stacked(_ordered(pool, one, given))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ordered(
    pool: ProcessPoolExecutor, one: partial[tuple[Pixels, str]], given: Iterable[tuple[str, RawImage]]
) -> Iterator[tuple[Pixels, str]]:
    try:
        yield from pool.map(one, given, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise UsageError(
            "a process that decodes images was killed, for want of memory perhaps; the same command goes on"
        ) from error


def _stacked(done: Iterable[tuple[Pixels, str]]) -> tuple[Pixels, Mapping[str, int]]:
    pixels, modes = zip(*done, strict=True)
    return np.stack(pixels), Counter(f"converted from {mode}" for mode in modes if mode)
