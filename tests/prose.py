"""Checks that the prose of README and documentation can be read once; `tox run -e lint` runs it.

On each page no sentence has more than 40 words, most have at most 20, and each has a verb. Code, tables and
headings are left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST, USUAL = 40, 20
LEAST_SHARE = 0.5
"""Of a page's sentences, those that have at most `USUAL` words."""
NOT_PROSE = re.compile(
    r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)`*\s*$|\$\$.*?\$\$|^<!--.*?-->"
    r"|^\s*(?:\||#|!\[|:{3,}|:\w+:).*?$|^ {4,}\S.*?$",
    re.DOTALL | re.MULTILINE,
)
VERBS = frozenset((ROOT / "tests" / "verbs.txt").read_text(encoding="utf-8").split())
"""Verbs that these pages use: the stems, and forms that no ending makes. Add the one that you need."""
ENDINGS = ("s", ""), ("es", ""), ("ies", "y"), ("d", ""), ("ed", ""), ("ied", "y"), ("ing", ""), ("ing", "e")


def prose(text: str) -> Iterator[str]:
    """The paragraphs of a page of Markdown, each in one line."""
    text = NOT_PROSE.sub("\n", text.removeprefix("\ufeff"))
    text = re.sub(r"`[^`]*`", "Name", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:[*+-]|\d+\.)\s)", text):
        line = " ".join(re.sub(r"^\s*(?:[*+-]|\d+\.)\s+", "", part).split())
        line = re.sub(r"^\*\*[^*]+\*\*[.:,]?", "", line).strip()  # the name of what follows
        if line:
            yield line.replace("**", "").replace("*", "")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page; a colon ends one only before a new paragraph."""
    for paragraph in prose(text):
        yield from re.split(r"(?<=[.!?])[\")”]*\s+(?=[\"“(]?[A-ZΘΦθφ])", paragraph)


def words(sentence: str) -> list[str]:
    """Its words; numbers and formulas are none."""
    return re.findall(r"[^\W\d_]{2,}(?:['’-][^\W\d_]+)*|\b[aAI]\b", sentence)


def has_verb(sentence: str) -> bool:
    """Whether one of its words is a form of a known verb, it is a formula, or a label."""
    label = sentence.endswith(":") and len(words(sentence)) < 6  # of the block below it
    if label or re.search(r"[=·→⊂]", sentence):
        return True
    return any(VERBS.intersection(_stems(word.lower())) for word in words(sentence))


def _stems(word: str) -> Iterator[str]:
    yield word
    yield word.partition("n't")[0].partition("n’t")[0]
    for ending, instead in ENDINGS:
        if word.endswith(ending):
            stem = word.removesuffix(ending) + instead
            yield stem
            if len(stem) > 2 and stem[-1] == stem[-2]:
                yield stem[:-1]


def complaints(name: str, text: str) -> list[str]:
    """What is wrong with the prose of a page, a line for each."""
    found = [each for each in sentences(text) if len(words(each)) > 2]
    counts = [len(words(each)) for each in found]
    told = [
        f"{name}: {count} words, and {LONGEST} are the most: {each}"
        for each, count in zip(found, counts, strict=True)
        if count > LONGEST
    ]
    told += [f"{name}: a sentence without a verb: {each}" for each in found if not has_verb(each)]
    short = sum(count <= USUAL for count in counts)
    if short < LEAST_SHARE * len(counts):
        told.append(
            f"{name}: {short} of {len(counts)} sentences have at most {USUAL} words; {LEAST_SHARE:.0%} should"
        )
    return told


def pages() -> dict[str, str]:
    """README and every page of the documentation, by name, as Markdown; notebooks without their code."""
    docs = ROOT / "docs"
    texts = {"README.md": (ROOT / "README.md").read_text(encoding="utf-8")}
    for path in (*sorted(docs.glob("*.md")), *sorted(docs.glob("reference/*.md"))):
        texts[path.relative_to(docs).as_posix()] = path.read_text(encoding="utf-8")
    for path in sorted(docs.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path.name] = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return texts


def main() -> None:
    """Print every complaint; end with 1 where there is one."""
    told = [line for name, text in pages().items() for line in complaints(name, text)]
    sys.stdout.write("".join(f"{line}\n" for line in told))
    sys.exit(bool(told))


if __name__ == "__main__":
    main()
