"""What `metalearn run EXPERIMENT` runs where no scale is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from metalearn_benchmarks.experiments.catalogue import experiments
from metalearn_benchmarks.runs import runner

EIGHT = {
    *("maml", "turtle", "lstm", "lstm-enhanced", "fo-turtle", "fo-maml"),
    *("finetuning", "train-from-scratch"),
}


@pytest.fixture
def asked(metalearn, tmp_path, monkeypatch):
    """Run the command up to its first run: the rows with their seeds, the scale, the tasks, and DIR."""
    monkeypatch.chdir(tmp_path)
    found = []

    def stop(cells, directory, *_):
        found[:] = [cells, directory]
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_experiment", stop)

    def run(*words):
        code, _, err = metalearn("run", *words)
        assert code == 130, err
        cells, directory = found
        (scale,), (tasks,) = {c.scale for c in cells}, {c.method.settings["tasks"] for c in cells}
        return {(c.name, c.seed) for c in cells}, scale, tasks, directory

    return run


def test_sine_alone_is_maml_and_turtle_at_the_papers_scale(asked):
    rows = {("maml", 0), ("turtle", 0)}
    assert asked("sine") == (rows, "paper", 70_000, Path("results/paper"))
    assert asked("sine", "--all") == ({(name, 0) for name in EIGHT}, "paper", 70_000, Path("results/paper"))
    assert asked("sine", "-m", "lstm")[:3] == ({("lstm", 0)}, "paper", 70_000)
    assert asked("sine", "--rule", "lslr")[0] == rows | {("lslr", 0)}
    assert asked("sine", "--only", "fo-*")[0] == {("fo-maml", 0), ("fo-turtle", 0)}
    assert asked("sine", "--seeds", "2", "--tasks", "9")[:3] == (
        {*rows, ("maml", 1), ("turtle", 1)},
        "paper",
        9,
    )


@pytest.mark.parametrize(
    ("scale", "seeds", "tasks"), [("smoke", 1, 100), ("small", 1, 2000), ("paper", 30, 70_000)]
)
def test_a_scale_that_is_named_is_all_of_the_experiment(asked, scale, seeds, tasks):
    rows = {(name, seed) for name in EIGHT for seed in range(seeds)}
    for words in ((), ("--all",)):
        assert asked("sine", "--scale", scale, *words) == (rows, scale, tasks, Path("results", scale))
    assert asked("sine", "--scale", scale, "-m", "maml")[0] == {("maml", seed) for seed in range(seeds)}


def test_experiments_that_say_nothing_run_at_the_small_scale(asked):
    Path("mine.toml").write_text('extends = "sine"\ntitle = "Mine"')
    assert asked("mine.toml")[:3] == ({(name, 0) for name in EIGHT}, "small", 2000)
    for name, experiment in experiments().items():
        if name != "sine":
            assert experiment.default.scale == "small"
            assert not experiment.default.methods


def test_a_file_says_its_own_default(asked):
    Path("mine.toml").write_text(
        'extends = "sine"\ntitle = "Mine"\n[default]\nscale = "smoke"\nseeds = 2\nmethods = ["fo-maml"]'
    )
    assert asked("mine.toml")[:3] == ({("fo-maml", 0), ("fo-maml", 1)}, "smoke", 100)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('scale = "smok"', "key 'default.scale': unknown scale 'smok': did you mean 'smoke'?"),
        ('methods = ["mmal"]', "key 'default.methods': unknown method 'mmal': did you mean 'maml'?"),
        ("seeds = 0", "key 'default': seeds must be an integer >= 1"),
        ("seed = 1", "unknown key 'default.seed': did you mean 'default.seeds'?"),
    ],
)
def test_a_default_that_is_not_there_is_refused(metalearn, tmp_path, line, told):
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "sine"\ntitle = "Mine"\n[default]\n{line}')
    code, out, err = metalearn("run", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_all_and_some_exclude_each_other(metalearn):
    code, _, err = metalearn("run", "sine", "--all", "-m", "maml")
    assert (code, err) == (2, "metalearn: --all runs every method, and -m maml some: leave one of them out\n")
