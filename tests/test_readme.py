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
from metalearn_core.testing import check_update_rule

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines()]


def test_all_code_runs_in_its_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rule, check, network, placing, claim, library, reading = blocks("python")
    (tmp_path / "metalearn_momentum.py").write_text(f"{rule}\n\n{placing}")
    assert len([line for line in rule.splitlines() if line.strip()]) < 25
    (tmp_path / "metalearn_momentum-0.1.0.dist-info").mkdir()
    entry_points = re.search(r"\[project\.entry-points\.metalearn\]\n(.*)\n", blocks("toml")[0])
    (tmp_path / "metalearn_momentum-0.1.0.dist-info/entry_points.txt").write_text(
        f"[metalearn]\n{entry_points[1].replace(chr(34), '')}\n"
    )
    requires = tomllib.loads(blocks("toml")[0])["project"]["dependencies"]
    (tmp_path / "metalearn_momentum-0.1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: metalearn-momentum\nVersion: 0.1.0\n"
        + "".join(f"Requires-Dist: {each}\n" for each in requires)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ten-shots.toml").write_text(blocks("toml")[1])
    fresh = Registry()
    monkeypatch.setattr(registry, "default_registry", lambda: fresh)
    validate = re.search(r"`(metalearn plugins validate .*?)`", README)[1]
    for command in [*COMMANDS, validate, f"{validate} --imports"]:
        if command.startswith("metalearn "):
            extra = ["--workers", "1", "--tasks", "20"] if " run " in command else []
            monkeypatch.setattr(sys, "argv", [*shlex.split(command), *extra])
            app.main()
    told = capsys.readouterr().out
    assert "momentum (beta=0.5)" in told
    assert "rule momentum, of metalearn-momentum 0.1.0" in told
    assert "momentum: 16 passed, 0 failed, 2 skipped" in told
    assert "TURTLE with a history of gradients" in told
    assert "holds  polyak contains gradient-descent" in told
    for code in (check, claim, library, reading):
        exec(compile(code, "README.md", "exec"), {})
    made = {}
    exec(compile(network, "README.md", "exec"), made)
    for result in check_update_rule(made["Proposal"]):
        assert result.status != "failed", result.message
    assert "maml" in capsys.readouterr().out


def test_every_other_command_is_one_that_ci_or_tox_runs():
    others = [command for command in COMMANDS if not command.startswith("metalearn ")]
    assert others == ["pip install tox && tox run -e sine", "pip install tox && tox"]
    assert others[1] in (ROOT / ".ci/run").read_text()
    assert "[testenv:sine]" in (ROOT / "tox.ini").read_text()


PROSE = re.sub(r"```.*?```", "", README, flags=re.DOTALL)


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!https?:)[^)#]+)\)", PROSE))
def test_what_it_points_to_is_there(link):
    assert (ROOT / link).exists()
