"""Text of strangers, escaped for each place that it goes to."""

from __future__ import annotations

import html
import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalearn_benchmarks.host.escape import (
    as_json,
    for_figure,
    for_file_name,
    for_html,
    for_latex,
    for_markdown,
    for_terminal,
    visible,
)

ANY = st.text(st.characters(codec=None))
"""Lone surrogates too."""


@settings(max_examples=60)
@given(ANY)
def test_nothing_steers_a_terminal_and_all_can_be_encoded(text):
    shown = visible(text)
    shown.encode()
    assert shown.splitlines() in ([], [shown])
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
    assert visible(shown) == shown


@settings(max_examples=60)
@given(ANY)
def test_a_text_of_lines_keeps_them(text):
    lines = text.split("\n")
    assert for_terminal(text).split("\n") == [for_terminal(line) for line in lines]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\r\u2028c", r"a\nb\r\u2028c"),
        ("caf\udce9", r"caf\udce9"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202egnp", r"\u202egnp"),
        ("Größe θ⁰ ≈ 1\u00a0s … 👩\u200d🔬", "Größe θ⁰ ≈ 1\u00a0s … 👩\u200d🔬"),
    ],
)
def test_what_is_not_seen_is_shown_as_an_escape_and_the_rest_stays(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("maml,steps=5,hidden=[20, 20] (x_y)", "maml,steps=5,hidden=[20, 20] (x_y)"),
        ("a|b", r"a\|b"),
        ("a\n| b |", r"a\\n\| b \|"),
        ("**a** _b_ `c`", r"\*\*a\*\* \_b\_ \`c\`"),
        ("<b>x</b> &lt;", r"\<b>x\</b> \&lt;"),
        ("[click](http://x)", r"[click\](http://x)"),
        ("$x^2$", r"\$x^2\$"),
        ("R&D", "R&D"),
    ],
)
def test_markdown_shows_the_text_itself(text, escaped):
    assert for_markdown(text) == escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("100 % & $5 #1 a_b {c}", r"100 \% \& \$5 \#1 a\_b \{c\}"),
        ("\\input{x}~^", r"\textbackslash{}input\{x\}\textasciitilde{}\textasciicircum{}"),
        ("a\n\\end{tabular}", r"a\textbackslash{}n\textbackslash{}end\{tabular\}"),
        ("[2pt] x", "{[}2pt] x"),
        ("* x", "{*} x"),
        ("a < b", r"a \textless{} b"),
    ],
)
def test_latex_shows_the_text_itself(text, escaped):
    assert for_latex(text) == escaped


@settings(max_examples=60)
@given(ANY)
def test_a_page_and_a_figure_can_hold_it(text):
    for_html(text).encode()
    assert html.unescape(html.escape(for_html(text))) == for_html(text)
    label = for_figure(text)
    assert not label.startswith("_")
    assert len(label) <= 121
    label.encode()


@settings(max_examples=60)
@given(ANY)
def test_a_file_name_stays_in_its_folder(text):
    name = for_file_name(text)
    name.encode()
    assert not set(name) & set("/\\\0\n")
    assert len(name) == len(text) or len(name.encode()) <= 200


def test_a_long_file_name_is_cut_and_stays_one_of_its_own():
    one, two = (for_file_name("é" * 400 + end) for end in "ab")
    assert one != two
    assert one[:90] == two[:90] == "é" * 90
    assert max(len(one.encode()), len(two.encode())) <= 200
    assert for_file_name("é" * 100) == "é" * 100


@settings(max_examples=60)
@given(st.dictionaries(ANY, ANY), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_json_says_the_same_in_every_encoding(data, encoding):
    text = as_json(data, encoding)
    assert json.loads(text) == data
    text.encode(encoding)
    assert for_terminal(text) == text


def test_json_keeps_letters_that_can_be_written():
    assert "θ" in as_json({"name": "θ"})
    assert "θ" not in as_json({"name": "θ"}, "ascii")
