"""What is installed together: the main job's environment."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = {
    path.parent.relative_to(ROOT).as_posix(): tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    for path in sorted(
        [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"), ROOT / "benchmarks/pyproject.toml"]
    )
}
"""The project table of each distribution of the repository, by folder."""


def needed(name: str) -> set[str]:
    """The folders of a distribution and of those of the repository that it depends on."""
    (folder,) = [folder for folder, project in DISTRIBUTIONS.items() if project["name"] == name]
    names = [re.match(r"[\w-]+", one)[0] for one in DISTRIBUTIONS[folder]["dependencies"]]
    return {folder}.union(*(needed(one) for one in names if one.startswith("metalearn-")))


def test_the_main_job_installs_what_it_needs_and_nothing_else():
    section = (ROOT / "tox.ini").read_text().partition("[testenv:sine]")[2].partition("commands")[0]
    lines = re.findall(r"^    (\S+ \S+)$", section, re.MULTILINE)
    assert lines[0] == "-c constraints.txt"
    assert sorted(line.removeprefix("-e ").removeprefix("./") for line in lines[1:]) == sorted(
        needed("metalearn-benchmarks")
    )


def test_uv_installs_every_distribution_with_the_versions_that_belong_together():
    """`uv sync` is tried by hand: what it reads is compared with the distributions in the tree."""
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = {project["name"] for project in DISTRIBUTIONS.values()}
    members = {
        path.relative_to(ROOT).as_posix()
        for pattern in root["tool"]["uv"]["workspace"]["members"]
        for path in ROOT.glob(pattern)
        if path.is_dir()
    }
    assert members | {"."} == DISTRIBUTIONS.keys()
    assert root["tool"]["uv"]["sources"] == {name: {"workspace": True} for name in names}
    assert {*root["dependency-groups"]["dev"], "metalearn-core"} == names
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    assert root["tool"]["uv"]["constraint-dependencies"] == [line for line in pinned if line[0] != "#"]
