from __future__ import annotations

import sys

import pytest

from metalearn_benchmarks.cli import app


@pytest.fixture
def metalearn(monkeypatch, capsys):
    """Run the command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["metalearn", *map(str, arguments)])
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory):
    """Where images are prepared: never the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("data-home")
        patch.setenv("METALEARN_DATA", str(home))
        yield home


@pytest.fixture(scope="session")
def prepared(data_home):
    """miniImageNet, CUB and Omniglot as when prepared, but for the pictures: noise, 21 of each class."""
    import numpy as np

    from metalearn_benchmarks.tasks.images.store.locations import store_folder
    from metalearn_benchmarks.tasks.images.store.manifest import SPLITS, Manifest
    from metalearn_benchmarks.tasks.images.store.writer import StoreWriter

    draw = np.random.default_rng(0)
    for name, size, channels, counts in (
        ("mini-imagenet", 84, 3, (64, 16, 20)),
        ("cub", 84, 3, (100, 50, 50)),
        ("omniglot-vinyals-rotations", 28, 1, (20, 8, 8)),
    ):
        plan = [
            (f"{split}-{i}", split, 21) for split, n in zip(SPLITS, counts, strict=True) for i in range(n)
        ]
        manifest = Manifest.of(name, "noise", size, channels, plan, {})
        with StoreWriter(store_folder(name, size), manifest) as writer:
            for each in writer.remaining():
                writer.put(each, draw.integers(0, 256, (21, size, size, channels), dtype=np.uint8))
            writer.finish()
    return data_home


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with five finished smoke runs of three methods, two of them with two seeds."""
    from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
    from metalearn_benchmarks.runs.training import run_cells

    directory = tmp_path_factory.mktemp("records")
    name, experiment = find_experiment("sine")
    chosen = Overrides(methods=["maml", "turtle", "train-from-scratch"], seeds=2)
    for cell in cells(name, experiment, "smoke", chosen):
        if (cell.name, cell.seed) != ("train-from-scratch", 1):
            run_cells([cell], directory, [])
    return directory


@pytest.fixture(autouse=True)
def _quick_where_no_picture_is_tested(request):
    if "report" not in request.path.parts and "drawn_figures" not in request.fixturenames:
        request.getfixturevalue("quick_figures")


@pytest.fixture
def drawn_figures():
    """Figures of reports are drawn, as users have them."""
