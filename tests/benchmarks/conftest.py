from __future__ import annotations

import sys

import pytest

from metalearn_benchmarks import cli


@pytest.fixture
def metalearn(monkeypatch, capsys):
    """Run the command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["metalearn", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with five finished smoke runs of three methods, two of them with two seeds."""
    from metalearn_benchmarks.catalogue import Overrides, cells, find_experiment
    from metalearn_benchmarks.cell import run_cells

    directory = tmp_path_factory.mktemp("records")
    name, experiment = find_experiment("sine")
    chosen = Overrides(methods=["maml", "turtle", "train-from-scratch"], seeds=2)
    for cell in cells(name, experiment, "smoke", chosen):
        if (cell.name, cell.seed) != ("train-from-scratch", 1):
            run_cells([cell], directory, [])
    return directory
