"""Reports without their pictures, where a test asks for what is written around them."""

from __future__ import annotations

from typing import Any

from metalearn_benchmarks.report import page, sections


def without_map(patch: Any) -> None:
    """The map is the same in every report and takes seconds."""
    patch.setattr(page, "_rule_map", lambda: ({}, {"three": "", "graph": "", "matrix": "", "witnesses": []}))


def without_figures(patch: Any) -> None:
    """Neither the map nor a figure of any setting."""
    without_map(patch)
    patch.setattr(sections, "_first_figures", lambda *_: iter(()))
    patch.setattr(sections, "_figures", lambda *_: iter(()))
    patch.setattr(page, "paper_figures", lambda records: ([], []))
