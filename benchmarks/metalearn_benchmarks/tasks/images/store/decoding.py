"""Decode images to uint8 pixels of one size: each is decoded once and resized once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from metalearn_benchmarks.tasks.images.store.conversion import convert_picture, open_picture
from metalearn_benchmarks.tasks.images.store.manifest import Pixels, Tally
from metalearn_core.errors import UsageError

Decoded = tuple[Pixels, tuple[str, ...]]
"""An image, and what was done to it."""
PER_PROCESS = 2_000
"""Images that are worth a process of their own, which takes half a second to start."""
CHUNK = 32


def decoder_versions() -> Mapping[str, str]:
    """Return what decodes the images, and how they are resized, for the manifest."""
    return {
        "decoder": f"Pillow {PIL.__version__}",
        "resize": "bicubic, to a square; the aspect is not kept and nothing is cropped",
        "convert": "upright as EXIF says, on white where transparent, 16 bits scaled to 8",
    }


def decode_image(given: tuple[str, RawImage], size: int, channels: int) -> Decoded:
    """Decode one image.

    Args:
        given: Its name for messages, and the bytes of its file or its pixels.
        size: Height and width of the result, in pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 `[size, size, channels]`, and in words what was done to it but for the change of its size.

    Raises:
        UsageError: It cannot be decoded.
    """
    name, data = given
    try:
        if isinstance(data, bytes):
            image, done = convert_picture(open_picture(data), channels, data)
        else:
            image, done = convert_picture(Image.fromarray(data), channels)
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
        said = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{name}: cannot be decoded ({said}); mend or replace it") from error
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size, size, channels), done


class Decoder(Protocol):
    """Decodes images of one class to uint8 `[images, size, size, channels]`, and counts what was done."""

    def __call__(self, images: Iterable[tuple[str, RawImage]]) -> tuple[Pixels, Tally]: ...


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
        yield lambda given: _stacked(given, lambda images: map(one, images))
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent)
    # Ctrl-C is for this process alone: the others are born deaf to it, all at the first thing to do
    with _deaf():
        pool.submit(int)
    try:
        yield lambda given: _stacked(given, partial(_ordered, pool, one))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """In it, Ctrl-C waits, and processes that are started never hear it. Windows has no such thing."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _ordered(
    pool: ProcessPoolExecutor, one: partial[Decoded], given: Iterable[tuple[str, RawImage]]
) -> Iterator[Decoded]:
    try:
        yield from pool.map(one, given, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise UsageError(
            "a process that decodes images was killed, for want of memory perhaps; the same command goes on"
        ) from error


def _stacked(
    given: Iterable[tuple[str, RawImage]],
    decode: Callable[[Iterable[tuple[str, RawImage]]], Iterable[Decoded]],
) -> tuple[Pixels, Tally]:
    names: list[str] = []

    def named() -> Iterator[tuple[str, RawImage]]:
        for name, data in given:
            names.append(name)
            yield name, data

    pixels, done = zip(*decode(named()), strict=True)
    tally = Tally()
    for name, words in zip(names, done, strict=True):
        for what in words:
            tally.count(what, name)
    return np.stack(pixels), tally
