"""Turn a figure into the bytes of a file, or into an SVG inside a page."""

from __future__ import annotations

import html
import io
import re
import warnings
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from metalearn_benchmarks.host.escape import for_html
from metalearn_benchmarks.plotting.style import COLOURS, RC_PARAMS, TEXT_COLOUR


def render(figure: Figure, ending: str, salt: str) -> bytes:
    """Return a figure as the bytes of a file. The same figure gives the same bytes every time.

    Args:
        figure: the figure. Its layout is computed once and then kept for further formats.
        ending: "png", "pdf" or "svg".
        salt: a text that makes the ids inside an SVG unique, so that several SVGs can share a page.
    """
    # transparent figures suit light and dark pages; a picture that is no SVG gets a white ground
    options: dict[str, dict[str, Any]] = {
        "png": {"dpi": 150, "transparent": False, "pil_kwargs": {"compress_level": 3}},
        "pdf": {"metadata": {"CreationDate": None}, "transparent": False},
        "svg": {"metadata": {"Date": None}},
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context({**RC_PARAMS, "svg.hashsalt": salt}), warnings.catch_warnings():
        # a title in letters that the font lacks is drawn as boxes; the page and the tables have its letters
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        layout = figure.get_layout_engine()
        if isinstance(layout, ConstrainedLayoutEngine):
            # once for all formats: it takes as long as drawing; the engine "none" instead of no engine would
            # have every format drawn twice, first for the layout
            layout.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(buffer, format=ending, **options[ending])
    return buffer.getvalue()


def inline_svg(svg: bytes, title: str) -> str:
    """Return an SVG that can stand inside an HTML page and takes its colours from the page.

    Args:
        svg: the SVG as `render` gives it.
        title: the title that screen readers read out.

    Returns:
        The SVG element. Its text has the page's text colour; the page defines the other colours as
        `--c0` to `--c7`.
    """
    text = svg.decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for index, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--c{index})")
    element = f'<svg role="img" aria-label="{html.escape(for_html(title))}"'
    return text.replace(TEXT_COLOUR, "currentColor").replace("<svg", element, 1)
