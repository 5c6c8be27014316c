"""All code of the README is run: what it says is what works."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from metalearn_benchmarks.cli import app
from metalearn_core import Registry, registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines()]


def test_all_code_runs_in_its_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rule, library = blocks("python")
    (tmp_path / "metalearn_momentum.py").write_text(rule)
    assert len([line for line in rule.splitlines() if line.strip()]) < 25
    project = tomllib.loads(blocks("toml")[0])["project"]
    information = tmp_path / "metalearn_momentum-0.1.0.dist-info"
    information.mkdir()
    (name, module), *_ = project["entry-points"]["metalearn"].items()
    (information / "entry_points.txt").write_text(f"[metalearn]\n{name} = {module}\n")
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        + "".join(f"Requires-Dist: {each}\n" for each in project["dependencies"])
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    fresh = Registry()
    monkeypatch.setattr(registry, "default_registry", lambda: fresh)
    monkeypatch.setenv("COLUMNS", "80")
    for command in COMMANDS:
        if command.startswith("metalearn "):
            shorter = ["--tasks", "20"] if "momentum" not in command else []  # the README shows its numbers
            extra = ["--workers", "1", *shorter] if " run " in command else []
            monkeypatch.setattr(sys, "argv", [*shlex.split(command), *extra])
            app.main()
    told = capsys.readouterr().out
    (shown,) = blocks("text")
    *table, note = shown.splitlines()
    assert without_numbers("\n".join(table)) in without_numbers(told)
    assert note in told
    assert "momentum: 16 passed, 0 failed, 2 skipped" in told
    assert "maml" in told.lower()
    exec(compile(library, "README.md", "exec"), {})


def test_every_other_command_is_one_that_ci_or_tox_runs():
    others = [command for command in COMMANDS if not command.startswith("metalearn ")]
    install, sine, tests = others
    assert install == "pip install -r requirements.txt"
    assert (sine, tests) == ("pip install tox && tox run -e sine", "pip install tox && tox")
    assert tests in (ROOT / ".ci/run").read_text()
    assert "[testenv:sine]" in (ROOT / "tox.ini").read_text()


def without_numbers(text: str) -> str:
    """Numbers differ in their last digits between processors, and so may the order of two rows."""
    lines = re.sub(r"[+-]?\d+\.\d+", "0.000", text).splitlines()
    return "\n".join(re.sub(r"(┃|│) +", r"\1 ", line) for line in lines)


PROSE = re.sub(r"```.*?```", "", README, flags=re.DOTALL)


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!https?:)[^)#]+)\)", PROSE))
def test_what_it_points_to_is_there(link):
    assert (ROOT / link).exists()
