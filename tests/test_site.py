"""The site beside its code: links, notebooks, error messages, and a reference that lacks no name."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import metalearn_core
import metalearn_core.testing

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    """The site's build runs it; what it gave on somebody's machine is nobody's business."""
    book = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    compile("\n".join("".join(cell["source"]) for cell in cells), path.name, "exec")


@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch):
    """As the site's build does."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
    pyplot.close("all")


LINKED = [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES]
OUTSIDE_PROSE = re.compile(r"^```.*?^```$|`[^`]*`", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.stem)
def test_what_it_links_to_is_there(path):
    """Files and headings of this repository; `tox run -e links` asks the others."""
    text = OUTSIDE_PROSE.sub("", path.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", text):
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists() or name.startswith("_generated/"), link
        assert not heading or heading in anchors(target), link


def anchors(path: Path) -> set[str]:
    """The headings of a page as links name them."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def string_constants(path: Path) -> Iterator[str]:
    """All strings of a module, with `…` for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_message_of_troubleshooting_is_one_that_the_code_gives():
    messages = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    assert len(messages) > 30
    sources = ("metalearn_core", "benchmarks/metalearn_benchmarks", "plugins")
    files = [path for source in sources for path in sorted((ROOT / source).rglob("*.py"))]
    told = [text for path in files for text in string_constants(path)]
    for message in messages:
        pattern = re.compile(".*".join(map(re.escape, message.split("…"))))
        assert any(pattern.search(text) for text in told), message


@pytest.mark.parametrize(
    "module", [metalearn_core, metalearn_core.testing], ids=lambda module: module.__name__
)
def test_the_reference_has_every_public_name(module):
    page = (
        DOCS
        / "reference"
        / f"{module.__name__.removeprefix('metalearn_')}.md".replace("core.testing", "testing")
    )
    told = re.findall(r"^\.\. (?:auto)?\w+:: (?:[\w.]*\.)?(\w+)$", page.read_text("utf-8"), re.MULTILINE)
    assert set(module.__all__) <= set(told)


def test_the_reference_has_every_shipped_rule():
    text = (DOCS / "reference/rules.md").read_text("utf-8")
    for path in ROOT.glob("plugins/*/metalearn_*.py"):
        rules = re.search(r"def metalearn_update_rules.*?return \{(.*?)\}", path.read_text(), re.DOTALL)
        for name in re.findall(r": (\w+)", rules[1]) if rules else ():
            assert f"{path.stem}.{name}\n" in text


CORE = (DOCS / "reference" / "core.md").read_text("utf-8")


def test_the_examples_of_the_reference_run():
    """Those on the page itself, of what has no docstring of its own."""
    runner = doctest.DocTestRunner()
    indented = re.sub(r"^(?!   ).*$", "", CORE, flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(indented, {}, "core.md", "core.md", 0)
    assert test.examples
    output: list[str] = []
    runner.run(test, out=output.append)
    assert output == []


@pytest.mark.parametrize("name", metalearn_core.__all__)
def test_the_reference_shows_how_to_use(name):
    """An example, on the page or in the docstring that it shows; of a function, what it takes and returns."""
    thing = getattr(metalearn_core, name)
    entry = re.search(rf"^\.\. \S+:: (?:[\w.]*\.)?{name}$(.*?)(?=^\.\.|^```)", CORE, re.MULTILINE | re.DOTALL)
    assert entry is not None
    text = f"{inspect.getdoc(thing)}\n{entry[1]}"
    assert ">>> " in text
    if inspect.isfunction(thing):
        signature = inspect.signature(thing)
        assert not signature.parameters or "Args:" in text
        assert re.search("None|Iterator", str(signature.return_annotation)) or "Returns:" in text


def test_the_citation_is_of_this_version_and_of_the_paper_that_readme_names():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (\S+)$", citation, re.MULTILINE)[1] == metalearn_core.__version__
    (doi,) = re.findall(r"^  doi: (\S+)$", citation, re.MULTILINE)
    assert f"https://doi.org/{doi}" in (ROOT / "README.md").read_text("utf-8")
    assert f"{{{doi}}}" in (DOCS / "cite.md").read_text("utf-8")
