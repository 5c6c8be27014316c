"""Two families of images that pip alone brings: characters are classes, and font families their examples.

`glyphs-print` is drawn from text faces in their styles, `glyphs-display` from handwriting and headline faces.
Both are white on black, with the same font size and baseline. A character is in the same split in both.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from metalearn_benchmarks.tasks.images.glyphs import characters as table
from metalearn_benchmarks.tasks.images.glyphs import fonts
from metalearn_benchmarks.tasks.images.store.building import ManifestAndPixels, load_or_build
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.locations import store_folder
from metalearn_benchmarks.tasks.images.store.manifest import Manifest, Pixels
from metalearn_core.errors import UsageError

LEAST_IMAGES = 24
"""Images that a class must have: 5 shots, 16 queries, and some to choose from."""
SAME_CLASS, SAME_FONT = 0.1, 0.05
"""Shares of ink: two fonts' drawings of a class that differ by less are one; two classes' drawings in a font
are one label too many."""


@attrs.frozen
class Glyphs:
    """Opens a glyph family. The images are drawn at the first use.

    Their folder is named after a digest of all that they depend on. Another version of a font, of Pillow or
    of the rules gives another folder, so that numbers do not change unnoticed.

    Args:
        name: `glyphs-print` or `glyphs-display`.
    """

    name: str
    splits = ("train", "validation", "test")

    def __call__(self, size: int) -> ImageStore:
        """Open the images at a size, in pixels.

        Raises:
            UsageError: Fonts or Pillow are missing, the size is too small, or the folder cannot be written.
        """
        if size < 12:
            raise UsageError(f"{self.name}: size must be at least 12 pixels, to read a character; got {size}")
        found = fonts.installed_fonts(self.name)
        source = _source(found)
        digest = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:10]
        return load_or_build(
            store_folder(f"{self.name}-{digest}", size), lambda: _made(self.name, size, found, source)
        )


def _source(found: tuple[fonts.Font, ...]) -> Mapping[str, Any]:
    """All that the pixels depend on."""
    try:
        from PIL import __version__, features

        from metalearn_benchmarks.tasks.images.glyphs import rendering
    except ImportError as error:
        raise UsageError(
            f"glyphs need Pillow ({error}): in the checkout, pip install -e './benchmarks[images]'"
        ) from error
    rules = "".join(inspect.getsource(module) for module in (table, rendering))
    return {
        "fonts": {font.package: [font.version, font.path.name, font.weight] for font in found},
        "pillow": __version__,
        "freetype": features.version("freetype2"),
        "rules": hashlib.sha256(f"{rules}{LEAST_IMAGES}{SAME_CLASS}{SAME_FONT}".encode()).hexdigest(),
    }


def _made(
    name: str, size: int, found: tuple[fonts.Font, ...], source: Mapping[str, Any]
) -> ManifestAndPixels:
    drawn = draw_characters(found, size)
    kept = [each for each in table.characters() if len(drawn[each]) >= LEAST_IMAGES]
    manifest = Manifest.of(
        name, "by base letter", size, 1, [(c.name, c.split, len(drawn[c])) for c in kept], source
    )
    return manifest, {c.name: np.stack(drawn[c])[..., None] for c in kept}


def draw_characters(found: tuple[fonts.Font, ...], size: int) -> Mapping[table.Character, list[Pixels]]:
    """Draw every character in every font that has it, and leave out drawings that nearly repeat another.

    Args:
        found: The fonts.
        size: Height and width of an image, in pixels.
    """
    from metalearn_benchmarks.tasks.images.glyphs.rendering import Drawings, Face

    images = {each: Drawings(SAME_CLASS) for each in table.characters()}
    for font in found:
        face, mine = Face(font.path, font.weight, size), Drawings(SAME_FONT)
        for each in table.characters():
            image = face.draw(each.sign)
            if image is not None and mine.add(image):
                images[each].add(image)
    return {each: drawings.images for each, drawings in images.items()}
