"""All code of the documentation is run, page by page: what it says is what works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from metalearn_benchmarks.cli import app
from metalearn_core import Registry, registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PIECE = re.compile(
    r"^<!-- (?P<told>file|installed): (?P<what>\S+) -->$|^```(?P<language>[\w{}]+)[^\n]*\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
ELSEWHERE = {
    "artifacts.md": "tests/benchmarks/artifacts/test_artifacts.py",
    "data.md": "tests/benchmarks/cli/test_data.py",
    "experiments.md": "tests/benchmarks/experiments/test_experiments.py",
    "from-your-data.md": "tests/benchmarks/tasks/images/test_own_images.py",
    "images.md": "tests/benchmarks/tasks/images/test_glyphs.py",
    "paper-against-us.md": "tests/benchmarks/claims/test_published.py",
}
"""Pages whose code needs what the tests of their subject have, and where it is run."""
NOT_RUN = {
    ("coming-from.md", "import learn2learn as l2l"): "learn2learn is no dependency",
    ("coming-from.md", "import torchopt"): "TorchOpt is no dependency",
    ("machines.md", "$ pip install -e './benchmarks[ray]'"): "it starts a cluster of several machines",
    ("machines.md", "$ torchrun --nproc-per-node 2 -m metalearn_benchmarks run my.toml --out results/two"): (
        "it starts processes; tests/benchmarks/runs does"
    ),
    ("machines.md", "$ metalearn run sine --device cuda --out results/gpu"): "it asks for a GPU",
    ("trackers.md", "import mlflow"): "MLflow is no dependency; tests/benchmarks/runs/observers runs it",
    ("trackers.md", "import wandb"): "no dependency; tests/benchmarks/runs/observers runs it",
    (
        "transformers.md",
        "from metalearn_core import keep_parameters",
    ): "transformers is no dependency; it ran with 5.24",
}
"""Blocks that no test runs, by page and first line, and why."""
KNOWN = {"python", "console", "toml", "text", "{include}", "{toctree}", "{eval-rst}", "{glossary}"}
SMALL = ("--workers", "1", "--tasks", "20")


TOX = (ROOT / "tox.ini").read_text(encoding="utf-8")


class Page:
    """A page that is run from top to bottom in one folder and one namespace."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.monkeypatch = path, monkeypatch
        self.names: dict[str, object] = {}
        self.file: str | None = None
        self.seen = 0

    def run(self) -> None:
        for piece in PIECE.finditer(self.path.read_text(encoding="utf-8")):
            if piece["told"] == "file":
                self.file = piece["what"]
            elif piece["told"] == "installed":
                self.install(piece["what"])
            else:
                self.block(piece["language"], piece["code"])

    def block(self, language: str, code: str) -> None:
        if (self.path.name, code.partition("\n")[0]) in NOT_RUN:
            pass
        elif self.file is not None:
            Path(self.file).write_text(code)
            self.file = None
        elif language == "python":
            exec(compile(code, self.path.name, "exec"), self.names)
        elif language == "console":
            for line in code.splitlines():
                self.command(shlex.split(line.removeprefix("$ ")))
        else:
            assert language in KNOWN - {"toml"}, f"who runs {language}?"
            return
        self.seen += 1

    def command(self, words: list[str]) -> None:
        if words[0] == "pip":
            assert words[1] == "install"
            assert words[2:] in (["-r", "requirements.txt"], ["tox"])
        elif words[:3] == ["tox", "run", "-e"]:
            assert f"[testenv:{words[3]}]" in TOX or words[3] == "tests"
        elif words[0] == "tar":
            subprocess.run(words, check=True)
        else:
            assert words[0] == "metalearn"
            small = SMALL if words[1] == "run" else ()
            if small and words[2].endswith(".toml"):
                small = SMALL[:2]  # it says how many tasks itself
            self.monkeypatch.setattr(sys, "argv", [*words, *small])
            app.main()

    def install(self, distribution: str) -> None:
        """As pip would, from the page's own pyproject.toml."""
        project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
        assert project["name"] == distribution
        folder = Path(f"{distribution.replace('-', '_')}-{project['version']}.dist-info")
        folder.mkdir()
        folder.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {distribution}\nVersion: {project['version']}\n"
            f"Summary: {project['description']}\nLicense-Expression: {project['license']}\n"
            f"Requires-Python: {project['requires-python']}\n"
            + "".join(f"Requires-Dist: {each}\n" for each in project["dependencies"])
        )
        groups = project["entry-points"].items()
        text = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in e.items()) for group, e in groups)
        folder.joinpath("entry_points.txt").write_text(text)
        self.monkeypatch.syspath_prepend(str(Path.cwd()))
        fresh = Registry()
        self.monkeypatch.setattr(registry, "default_registry", lambda: fresh)


def test_requirements_are_what_tox_installs():
    """Without what is for tests alone."""
    text = (ROOT / "tox.ini").read_text().partition("[testenv]")[2].partition("commands")[0]
    found = re.findall(r"^    (-[ce] \S+)$", text, re.MULTILINE)
    lines = (ROOT / "requirements.txt").read_text().splitlines()[1:]
    assert lines == [re.sub(r"\[.*", "", line) for line in found]


PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("path", [p for p in PAGES if p.name not in ELSEWHERE], ids=lambda path: path.stem)
def test_its_code_runs(path, tmp_path, monkeypatch, quick_figures):
    text = path.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("benchmarks").symlink_to(ROOT / "benchmarks")
    page = Page(path, monkeypatch)
    page.run()
    assert page.seen == len(re.findall(r"^```(?:python|console|toml)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_commands_that_run_elsewhere_have_the_options_that_they_are_given(name):
    found = re.findall(r"^\$ metalearn (.+)$", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert found or name == "images.md"
    for line in found:
        command, words = app.metalearn, shlex.split(line)
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_runs_elsewhere_is_read_there(name):
    assert name in (ROOT / ELSEWHERE[name]).read_text()


def test_what_is_not_run_is_there():
    """No reason outlives its block."""
    for name, first in NOT_RUN:
        assert re.search(rf"^```\w+\n{re.escape(first)}$", (DOCS / name).read_text("utf-8"), re.MULTILINE)


def test_no_page_has_code_that_is_not_run():
    """Whatever language a block is in, somebody knows what to do with it."""
    for path in PAGES:
        languages = re.findall(
            r"^```(\S*)[^\n]*\n.*?^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE
        )
        assert set(languages) <= KNOWN, path.name
