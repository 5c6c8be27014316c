"""Titles, scores and names that hold anything: the report shows them as they are, and nothing comes alive."""

from __future__ import annotations

import html
import io
import re
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
import synthetic_records as synthetic
from undrawn import without_map

from metalearn_benchmarks.cli import app

TITLES = [
    "$\\frac{1}{$ and 100 %",
    "a\n\n\\input{/etc/passwd}\n| b |",
    "[bold]x[/bold] :bug: \x1b]0;title\x07\x1b[2J",
    "<script>alert(1)</script> \udce9 \u202e",
    "_hidden **bold** [link](http://x)",
    "漢字 " + "long " * 60,
]
SCORE = "error\n\\write18{rm}\n$"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("odd")
    for index, title in enumerate(TITLES):
        for seed in (0, 1):
            cell = synthetic.cell(f"m{index}", seed, method="turtle")
            cell["method"]["title"] = title.encode("utf-8", "replace").decode()
            synthetic.write(target, cell, score=SCORE)
    return target


@pytest.fixture(scope="module")
def printed(folder):
    """The exit code of `report`, and what it prints; without the map, which is the same for all records."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        without_map(patch)
        patch.setattr(sys, "argv", ["metalearn", "report", str(folder)])
        app.main()
    return out.getvalue(), err.getvalue()


def test_the_report_is_drawn_without_a_word(printed):
    out, err = printed
    assert "report: " in out
    assert not err


def test_the_terminal_is_not_steered(printed):
    assert not set(printed[0]) & {"\x1b", "\x07", "\u202e"}
    assert r"[bold]x[/bold] :bug: \x1b]0;title" in " ".join(re.sub("[│┃]", " ", printed[0]).split())


def test_markdown_has_a_line_for_each_row(printed, folder):
    text = (folder / "report/sine-sine-5-shot.md").read_text()
    table, _, caption = text.partition("\n\n")
    assert len(table.split("\n")) == 2 + len(TITLES)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table.split("\n")} == {16}
    assert "<script>" not in re.sub(r"\\<", "", text)
    assert len(caption.strip().split("\n")) == 1


def test_latex_has_no_line_of_a_stranger(printed, folder):
    text = (folder / "report/sine-sine-5-shot.tex").read_text()
    ours = {"begin", "end", "hline", "textbf", "textbackslash", "textless", "textgreater"}
    live = "\n".join(line for line in text.split("\n") if not line.startswith("%"))
    assert set(re.findall(r"\\([A-Za-z]+)", live)) <= {*ours, "approx", "textasciicircum"}
    assert "write18" not in live


def test_the_page_shows_titles_as_they_are(printed, folder):
    shown = (folder / "report/report.html").read_text()
    assert "<script>" not in shown
    for title in (TITLES[0], TITLES[4]):
        assert html.escape(title, quote=False) in shown
    labels = {html.unescape(label) for label in re.findall(r">([^<]*)</text>", shown)}
    assert {"$\\frac{1}{$ and 100 %", " _hidden **bold** [link](http://x)"} <= labels
