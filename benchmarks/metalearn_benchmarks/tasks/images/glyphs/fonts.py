"""The font packages that the two glyph families are drawn from. All are under OFL-1.1 or Apache-2.0."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import attrs

from metalearn_core.errors import UsageError

PRINT = (
    "andada-pro", "archivo", "arvo", "asap", "atkinson-hyperlegible", "bitter", "cabin", "chivo",
    "cormorant-garamond", "crimson-pro", "dm-mono", "dm-sans", "dm-serif-text", "domine", "eb-garamond",
    "fira-code", "fjalla-one", "inconsolata", "jetbrains-mono", "josefin-sans", "karla", "libre-baskerville",
    "lora", "montserrat", "nunito", "overpass", "pt-serif", "raleway", "roboto", "roboto-mono", "roboto-slab",
    "rubik", "sanchez", "source-code-pro", "source-sans-3", "space-mono", "vollkorn",
)  # fmt: skip
"""Text faces, with and without serifs, proportional and of one width."""
DISPLAY = (
    "abril-fatface", "alfa-slab-one", "anton", "baloo-2", "black-ops-one", "caveat", "chakra-petch",
    "changa-one", "comfortaa", "dancing-script", "delius", "fredoka", "gravitas-one", "great-vibes",
    "indie-flower", "kalam", "lilita-one", "lobster", "lobster-two", "oleo-script", "orbitron", "pacifico",
    "playfair-display", "press-start-2p", "righteous", "rowdies", "russo-one", "satisfy",
    "shadows-into-light", "smooch-sans", "syne", "teko", "titan-one", "unbounded", "viga",
    "yanone-kaffeesatz", "yellowtail", "zeyada",
)  # fmt: skip
"""Handwriting, and faces for headlines; none that draws small letters as capitals."""
DOMAINS: Mapping[str, tuple[str, ...]] = {"glyphs-print": PRINT, "glyphs-display": DISPLAY}


STYLES: Mapping[str, tuple[tuple[int, str], ...]] = {
    "glyphs-print": ((400, "normal"), (700, "italic"), (300, "normal"), (400, "italic"), (900, "normal")),
    "glyphs-display": ((400, "normal"),),
}
"""Weight and slope, a family after the other: text is set in bold and in italics too."""


@attrs.frozen
class Font:
    """An installed font family, and the face of it that is drawn.

    Args:
        package: The name of its package.
        version: The version of its package.
        path: The file of the face.
        weight: The weight of the face, 400 for regular.
    """

    package: str
    version: str
    path: Path
    weight: int


def installed_fonts(domain: str) -> tuple[Font, ...]:
    """Return the fonts of a glyph family.

    Raises:
        UsageError: Some of them are not installed.
    """
    packages = [f"fontpkg-{slug}" for slug in DOMAINS[domain]]
    missing = [package for package in packages if importlib.util.find_spec(_module(package)) is None]
    if missing:
        raise UsageError(
            f"{domain}: {len(missing)} of its {len(packages)} font packages are missing ({missing[0]}, ...):"
            " in the checkout, pip install -e './benchmarks[images]'"
        )
    return tuple(
        Font(package, importlib.metadata.version(package), _file(package, *style), style[0])
        for package, style in zip(packages, cycle(STYLES[domain]), strict=False)
    )


def _module(package: str) -> str:
    return package.replace("-", "_")


def _file(package: str, weight: int, slope: str) -> Path:
    """The file of that slope, or an upright one, whose weight is nearest or can be set."""
    spec = importlib.util.find_spec(_module(package))
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    files = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["files"]

    def distance(file: Mapping[str, Any]) -> tuple[bool, bool, int, str]:
        return (
            file["style"] != slope, not file["variable"], abs((file["weight"] or 400) - weight), file["path"]
        )  # fmt: skip

    return folder / str(min(files, key=distance)["path"])
