"""`metalearn plugins new`: a project whose tests pass as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from metalearn_benchmarks.cli import app
from metalearn_benchmarks.plugins.project import OURS


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    """`metalearn plugins new ...` in an empty folder: exit code, output, errors."""

    def run(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("METALEARN_LOAD_PLUGINS", raising=False)  # it is to be found once it is installed
        monkeypatch.setattr(sys, "argv", ["metalearn", "plugins", "new", *words])
        try:
            app.main()
        except SystemExit as stop:
            return (stop.code, *capsys.readouterr())
        return (0, *capsys.readouterr())

    return run


def test_its_tests_pass_as_they_stand(new, tmp_path):
    code, out, _ = new("my-rule", "--author", "Ada {{ Lovelace }}")
    project = tmp_path / "metalearn-my-rule"
    assert code == 0
    assert "metalearn plugins check my-rule" in out
    assert "Ada {{ Lovelace }}" in (project / "LICENSE").read_text()
    readme = (project / "README.md").read_text()
    assert readme.index("installed from its checkout") < readme.index("metalearn plugins check my-rule")
    assert "${{ matrix.python }}" in (project / ".github/workflows/ci.yml").read_text()
    # as pip would install it
    facts = tomllib.loads((project / "pyproject.toml").read_text())
    ((name, module),) = facts["project"]["entry-points"]["metalearn"].items()
    info = project / "metalearn_my_rule-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: metalearn-my-rule\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[metalearn]\n{name} = {module}\n")
    path = os.pathsep.join([str(project), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."],
        cwd=project, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "19 passed, 1 skipped" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Rule", "is no name for a rule"),
        ("my_rule", "such as my-rule"),
        ("../x", "is no name for a rule"),
        ("class", "is no name for a rule"),
        ("lstm", "a plugin 'lstm' is installed already"),
        ("turtle", "'turtle' is the name of a method; choose another name for the rule"),
        ("core", "metalearn-core is a distribution of metalearn itself, which yours would replace"),
        ("a" * 300, "expected at most 64 letters, got 300"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_written(new, tmp_path, name, said):
    code, _, err = new(name)
    assert (code, len(err.splitlines())) == (2, 1)
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_a_name_whose_place_is_taken_is_refused(new, tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "metalearn_stats-3.0.dist-info").mkdir(parents=True)
    (site / "metalearn_stats-3.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: metalearn-stats\nVersion: 3.0\n"
    )
    (site / "metalearn_tools.py").touch()
    monkeypatch.syspath_prepend(site)
    for name, said in {
        "stats": "metalearn-stats 3.0 is installed already, which yours would replace; choose another name",
        "tools": "a module metalearn_tools can be imported already",
    }.items():
        code, _, err = new(name)
        assert (code, len(err.splitlines())) == (2, 1)
        assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_every_distribution_of_ours_is_known():
    root = Path(__file__).parents[3]
    files = [root / "pyproject.toml", *root.glob("*/pyproject.toml"), *root.glob("plugins/*/pyproject.toml")]
    names = [tomllib.loads(path.read_text())["project"]["name"] for path in files]
    assert sorted(names) == sorted(f"metalearn-{name}" for name in OURS)


def test_what_is_there_is_kept(new, tmp_path):
    (tmp_path / "metalearn-mine").mkdir()
    (tmp_path / "metalearn-mine/kept").write_text("x")
    code, _, err = new("mine")
    assert code == 2
    assert "is there already" in err
    assert [path.name for path in tmp_path.rglob("*")] == ["metalearn-mine", "kept"]


def test_where_it_cannot_be_written_is_one_line(new, tmp_path):
    (tmp_path / "file").write_text("x")
    code, _, err = new("mine", "--to", "file")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "cannot be written" in err
    assert "use another --to" in err
    code, _, err = new("mine", "--to", "a" * 300)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "use another --to" in err
