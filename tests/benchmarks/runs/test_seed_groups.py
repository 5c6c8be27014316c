"""Seeds that train together: the records of each, what is resumed with what, and how many at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tomllib
from types import SimpleNamespace

import attrs
import pytest

from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.runs import seed_groups
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.runs.job import GroupReporter
from metalearn_benchmarks.runs.training import run_cells
from metalearn_core import Event, Registry, Settings, UpdateRule, hookimpl, registry

RUN = ("run", "sine", "--scale", "smoke", "--tasks", 60, "-m", "maml", "--engine", "eager")
PLACE = "sine/sine-5-shot/maml"


def result(directory, seed):
    return json.loads((directory / PLACE / str(seed) / "result.json").read_text())


def numbers(directory, *seeds):
    """Everything that came out, without what depends on when and how fast it ran, and the run's id."""
    kept = ("scores", "summary", "validations", "best_position", "curves", "diverged")
    found = {}
    for seed in seeds:
        lines = (directory / PLACE / str(seed) / "metrics.jsonl").read_text().splitlines()
        values = [
            {k: v for k, v in json.loads(line).items() if k not in ("seconds", "run_id")} for line in lines
        ]
        found[seed] = [values, {key: result(directory, seed)[key] for key in kept}]
    return found


def together(directory, *seeds):
    return [result(directory, seed)["seeds_together"] for seed in seeds]


def smoke(seeds, method="maml", **changed):
    name, experiment = find_experiment("sine")
    given = {"tasks": 60, "engine": "eager", **changed}
    return cells(name, experiment, "smoke", Overrides(methods=[method], seeds=seeds, **given))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    directory = tmp_path_factory.mktemp("alone")
    for cell in smoke(3):
        run_cells([cell], directory, [])
    return numbers(directory, 0, 1, 2)


@pytest.fixture
def interrupting(monkeypatch):
    """Press Ctrl-C, once, when a seed's step has brought it to this position."""

    def at(position):
        pressed = []

        def observer(event):
            if event.kind == "step" and event.position == position and not pressed:
                pressed.append(event)
                os.kill(os.getpid(), signal.SIGINT)

        class Plugin:
            @hookimpl
            def metalearn_observers(self):
                return {"ctrl-c": lambda run: observer}

        fresh = Registry()
        fresh.register(Plugin(), "ctrl-c", "ctrl-c-distribution")
        monkeypatch.setattr(registry, "default_registry", lambda: fresh)

    return at


def test_seeds_that_train_together_have_records_of_their_own_with_the_same_bits(metalearn, tmp_path, alone):
    code, out, err = metalearn(*RUN, "--seeds", 3, "--together", 3, "--workers", 1, "--out", tmp_path)
    assert code == 0, err
    assert numbers(tmp_path, 0, 1, 2) == alone
    assert together(tmp_path, 0, 1, 2) == [[0, 1, 2]] * 3
    for seed in range(3):
        folder = tmp_path / PLACE / str(seed)
        asked = tomllib.loads((folder / "experiment.toml").read_text())
        assert (asked["seed"], asked["seeds_together"]) == (seed, [0, 1, 2])
        assert {"metrics.jsonl", "checkpoint.pt"} <= {path.name for path in folder.iterdir()}
        assert f"maml, seed {seed}: median error" in out
    assert "maml, seeds 0-2: task" in out
    assert ", seed 0: task" not in out
    assert metalearn(*RUN, "--seeds", 3, "--together", 1, "--out", tmp_path)[1].count("already done") == 3


def test_compiled_seeds_are_one_program(metalearn, tmp_path):
    arguments = ("--seeds", 2, "--together", 2, "--engine", "compiled", "--steps", 1, "--workers", 1)
    run = ("run", "sine", "--scale", "smoke", "--tasks", 12, "-m", "maml", *arguments, "--out", tmp_path)
    code, _, err = metalearn(*run)
    assert code == 0, err
    for seed in (0, 1):
        path = tmp_path / "sine/sine-5-shot/maml,steps=1" / str(seed) / "result.json"
        found = json.loads(path.read_text())
        assert (found["engine"], found["seeds_together"]) == ("compiled", [0, 1])


def test_what_is_cut_off_goes_on_with_the_same_seeds(metalearn, tmp_path, alone, interrupting):
    interrupting(20)
    first = (*RUN, "--seeds", 2, "--together", 2, "--workers", 1, "--out", tmp_path)
    code, _, err = metalearn(*first)
    assert code == 130
    assert "the same command goes on" in err
    assert not list(tmp_path.rglob("result.json"))
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 2
    again = (*RUN, "--seeds", 3, "--together", 3, "--workers", 2, "--out", tmp_path)
    code, _, err = metalearn(*again)
    assert code == 0, err
    assert together(tmp_path, 0, 1, 2) == [[0, 1], [0, 1], [2]]
    assert numbers(tmp_path, 0, 1, 2) == alone


def test_a_seed_whose_folder_is_deleted_begins_anew_by_itself(metalearn, tmp_path, alone, interrupting):
    interrupting(20)
    run = (*RUN, "--seeds", 3, "--together", 3, "--workers", 1, "--out", tmp_path)
    assert metalearn(*run)[0] == 130
    shutil.rmtree(tmp_path / PLACE / "1")
    interrupting(40)  # and once more, when the others are under way
    assert metalearn(*run)[0] == 130
    code, out, err = metalearn(*run)
    assert code == 0, err
    assert together(tmp_path, 0, 1, 2) == [[0, 1, 2], [1], [0, 1, 2]]
    assert numbers(tmp_path, 0, 1, 2) == alone
    assert "maml, seeds 0, 2: task" in out


def test_what_is_trained_but_not_recorded_only_has_to_be_tested(metalearn, tmp_path, alone):
    told = []

    def stop_at_the_second_test(event):
        told.append(event.kind)
        if told.count("testing") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(smoke(3), tmp_path, [stop_at_the_second_test])
    assert [path.parent.name for path in tmp_path.rglob("result.json")] == ["0"]
    held = {path: path.read_bytes() for path in tmp_path.rglob("metrics.jsonl")}
    assert metalearn(*RUN, "--seeds", 3, "--workers", 1, "--out", tmp_path)[0] == 0
    assert together(tmp_path, 0, 1, 2) == [[0, 1, 2]] * 3
    assert numbers(tmp_path, 0, 1, 2) == alone
    assert held == {path: path.read_bytes() for path in held}


def test_a_failure_and_a_divergence_are_told_of_each_seed(metalearn, tmp_path, monkeypatch):
    class Broken(UpdateRule):
        def __init__(self, layout):
            super().__init__()

        def update(self, theta, signal, state):
            raise RuntimeError("as broken as can be")

    class Plugin:
        __file__ = "broken.py"

        @hookimpl
        def metalearn_update_rules(self):
            return {"broken": Broken}

    fresh = Registry()
    fresh.register(Plugin(), "broken", "broken-distribution")
    monkeypatch.setattr(registry, "default_registry", lambda: fresh)
    rules = ("--rule", "broken", "--rule", "gradient-descent", "--option", "inner_lr=1e12")
    code, _, err = metalearn(*RUN, *rules, "--seeds", 2, "--together", 2, "--workers", 1, "--out", tmp_path)
    assert code == 1
    for seed in (0, 1):
        path = tmp_path / f"sine/sine-5-shot/broken/{seed}/error.txt"
        told = "rule Broken (test_seed_groups): update raised RuntimeError: as broken as can be"
        assert f"broken, seed {seed}: {told} (the traceback is in {path})" in err
        assert "in update" in path.read_text()
        assert f"000.0, seed {seed}: stopped at outer step 1" in err
        assert result(tmp_path, seed)["diverged"] is None


def test_several_seeds_are_told_of_as_one_that_goes_on_when_the_first_diverges():
    told, stop = [], SimpleNamespace(is_set=lambda: False)
    report = GroupReporter(
        "both", lambda label, event: told.append((label, event.kind, event.position)), stop
    )
    for event in (
        *(Event("start", 0), Event("start", 0)),
        *(Event("step", 1), Event("step", 1)),
        *(Event("diverged", 1), Event("step", 2)),
        *(Event("end", 1), Event("end", 2)),
    ):
        report(event)
    told_of = [("start", 0), ("step", 1), ("diverged", 1), ("step", 2), ("end", 2)]
    assert told == [("both", *one) for one in told_of]


def test_a_validation_is_told_as_the_mean_over_the_seeds():
    told, stop = [], SimpleNamespace(is_set=lambda: False)
    report = GroupReporter("both", lambda label, event: told.append(dict(event.values)), stop)
    for position, score in ((0, 1.0), (0, 3.0), (5, 7.0)):
        report(Event("validation", position, {"score": score, "best": score}))
    assert [values["score"] for values in told] == [1.0, 2.0, 7.0]


@pytest.mark.parametrize("value", ["0", "-3", "some", "1.5", ""])
def test_a_number_that_is_none_is_refused(metalearn, tmp_path, value):
    code, out, err = metalearn(*RUN, "--together", value, "--out", tmp_path)
    assert (code, err.count("\n"), out) == (2, 1, "")
    assert "--together" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"engine": "compiled", "tasks": 1}, "compiled"),
        ({"engine": "eager", "tasks": 10**6}, "eager"),
        ({"tasks": 9_999}, "eager"),
        ({"tasks": 10_000}, "compiled"),
        ({"tasks": 10_000, "meta_batch": 2}, "eager"),
    ],
)
def test_the_settings_say_which_engine_they_want(given, wanted):
    assert Settings(**given).wanted_engine == wanted


def test_left_to_itself_it_takes_together_what_is_compiled_and_fits(monkeypatch):
    (cell,) = smoke(1, engine="compiled")
    parts = Components.build(cell)
    each = seed_groups.bytes_per_seed(parts)
    assert 4 * 4 * parts.learner.layout.size < each < 2**26
    for fitting, programs, wanted in ((0.1, 1, 1), (7.5, 1, 7), (7.5, 3, 2), (1e9, 1, seed_groups.MAX_SEEDS)):
        free = int(fitting * each / seed_groups.MEMORY_SHARE)
        monkeypatch.setattr(seed_groups, "free_memory", lambda device, free=free: free)
        assert seed_groups.group_size(cell, parts, None, programs) == wanted
    assert seed_groups.group_size(cell, parts, 200, 1) == 200
    eager = attrs.evolve(parts, settings=attrs.evolve(parts.settings, engine="eager"))
    assert seed_groups.group_size(cell, eager, None, 1) == 1
    assert seed_groups.group_size(cell, eager, 5, 1) == 5
    (pretrained,) = smoke(1, "finetuning", engine="compiled")
    assert seed_groups.group_size(pretrained, Components.build(pretrained), 5, 1) == 1


def test_the_free_memory_is_known():
    import torch

    assert 2**26 < seed_groups.free_memory(torch.device("cpu")) < 2**50


def begun(directory, seed, named, *files):
    folder = directory / PLACE / str(seed)
    folder.mkdir(parents=True)
    (folder / "experiment.toml").write_text(f"seeds_together = {list(named)}\n")
    for file in files:
        (folder / file).touch()


def formed(directory, seeds, size):
    return [
        ([cell.seed for cell in group.cells], list(group.seeds))
        for group in seed_groups.form_groups(smoke(seeds), directory, {("sine-5-shot", "maml"): size})
    ]


def test_new_seeds_are_taken_together_by_method(tmp_path):
    assert formed(tmp_path, 5, 2) == [([0, 1], [0, 1]), ([2, 3], [2, 3]), ([4], [4])]
    name, experiment = find_experiment("sine")
    both = cells(name, experiment, "smoke", Overrides(methods=["maml", "turtle"], seeds=2))
    found = seed_groups.form_groups(
        both, tmp_path, {("sine-5-shot", "maml"): 9, ("sine-5-shot", "turtle"): 1}
    )
    labels = ["maml, seeds 0-1", "turtle, seed 0", "turtle, seed 1"]
    assert [seed_groups.group_label(group.cells) for group in found] == labels


def test_a_seed_that_lost_its_checkpoint_begins_anew_in_its_place(tmp_path):
    begun(tmp_path, 0, [0, 1, 2])
    for seed in (1, 2):
        begun(tmp_path, seed, [0, 1, 2], "checkpoint.pt")
    assert formed(tmp_path, 4, 3) == [([0, 1, 2], [0, 1, 2]), ([3], [3])]


def test_those_that_are_finished_or_not_asked_for_keep_their_places(tmp_path):
    begun(tmp_path, 0, [0, 1, 2], "checkpoint.pt", "result.json")
    for seed in (1, 2):
        begun(tmp_path, seed, [0, 1, 2], "checkpoint.pt")
    found = seed_groups.form_groups(smoke(2)[1:], tmp_path, {("sine-5-shot", "maml"): 3})
    assert [([cell.seed for cell in group], group.seeds) for group in found] == [([1], (0, 1, 2))]


def test_where_nothing_was_saved_groups_are_made_anew(tmp_path):
    begun(tmp_path, 0, [0, 1])
    begun(tmp_path, 1, [0, 1])
    assert formed(tmp_path, 3, 3) == [([0, 1, 2], [0, 1, 2])]


def test_a_damaged_list_of_seeds_is_nothing_to_go_on_from(tmp_path):
    begun(tmp_path, 1, [0, 2], "checkpoint.pt")
    assert formed(tmp_path, 3, 3) == [([0, 1, 2], [0, 1, 2])]


def test_the_seeds_of_a_program_may_be_told(tmp_path):
    (group,) = seed_groups.form_groups(smoke(2)[1:], tmp_path, {("sine-5-shot", "maml"): (0, 1, 7)})
    assert ([cell.seed for cell in group], group.seeds) == ([1], (0, 1, 7))
