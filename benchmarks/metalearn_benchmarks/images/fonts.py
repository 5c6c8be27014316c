"""The font packages that the two glyph families are drawn from; all OFL-1.1 or Apache-2.0."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

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


@attrs.frozen
class Font:
    """An installed font family: package, version, and the file of its upright regular face."""

    package: str
    version: str
    path: Path


def installed(domain: str) -> tuple[Font, ...]:
    """The fonts of a domain; UsageError unless all are there."""
    packages = [f"fontpkg-{slug}" for slug in DOMAINS[domain]]
    missing = [package for package in packages if importlib.util.find_spec(_module(package)) is None]
    if missing:
        raise UsageError(
            f"{domain}: {len(missing)} of its {len(packages)} font packages are missing ({missing[0]}, ...):"
            " pip install 'metalearn-benchmarks[images]'"
        )
    return tuple(Font(p, importlib.metadata.version(p), _regular(p)) for p in packages)


def _module(package: str) -> str:
    return package.replace("-", "_")


def _regular(package: str) -> Path:
    """The file that holds the upright face of weight 400, or of a weight that can be set."""
    spec = importlib.util.find_spec(_module(package))
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    files = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["files"]
    upright = [file for file in files if file["style"] == "normal"]
    upright.sort(key=lambda file: (not file["variable"], file["weight"] != 400, file["path"]))
    return folder / str(upright[0]["path"])
