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
