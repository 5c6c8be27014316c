"""The linter of the prose: what it finds, and that README and documentation pass it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import prose

PAGES = prose.pages()
LONG = "A rule " + "reads the gradient and " * 14 + "stops."


@pytest.mark.parametrize("name", PAGES)
def test_the_page_can_be_read_once(name):
    assert prose.complaints(name, PAGES[name]) == []


def test_every_page_is_read():
    docs = Path(prose.ROOT, "docs")
    found = {each.relative_to(docs).as_posix() for kind in ("*.md", "*.ipynb") for each in docs.rglob(kind)}
    assert set(PAGES) == {"README.md"} | {name for name in found if not name.startswith("_generated/")}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (LONG, "page: 59 words, and 40 are the most"),
        ("Not a word of it here, nor in the table.", "page: a sentence without a verb"),
        (
            "It stops. " + "It reads one and " * 7 + "it stops. " + "It reads two and " * 7 + "it stops.",
            "page: 0 of 2",
        ),
    ],
    ids=["long", "telegraph", "mostly long"],
)
def test_it_complains_of(text, complaint):
    assert [line for line in prose.complaints("page", text) if line.startswith(complaint)]


def test_it_leaves_out_what_is_no_prose():
    parts = (
        "# A heading of no verb",
        "Fish, once in a terminal:",
        f"```text\n{LONG}\n```",
        "| a table | without | verbs |",
        f"<!-- {LONG} -->",
    )
    assert prose.complaints("page", "\n\n".join(parts)) == []


def test_a_list_is_a_sentence_for_each_of_its_items():
    assert list(prose.sentences("* It reads.\n* It writes\n  and stops.\n")) == [
        "It reads.",
        "It writes and stops.",
    ]
