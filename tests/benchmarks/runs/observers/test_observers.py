"""Observers: the two shipped ones, and what a stranger's cannot do to a run."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from rich.console import Console

from metalearn_benchmarks.cli.support.progress import Display
from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.runs import training as cells_module
from metalearn_benchmarks.runs.observers import shipped as shipped
from metalearn_benchmarks.runs.observers.dispatch import global_state_restored
from metalearn_benchmarks.runs.runner import run_experiment
from metalearn_core import Event, Registry, UpdateRule, UsageError, hookimpl, registry

RUN = ("run", "sine", "--scale", "smoke", "--tasks", 20, "--workers", 1)


@pytest.fixture
def install(monkeypatch):
    """Install observers by hand, beside what is installed."""

    def install(**made):
        class Plugin:
            @hookimpl
            def metalearn_observers(self):
                return {name.replace("_", "-"): factory for name, factory in made.items()}

        fresh = Registry()
        fresh.register(Plugin(), "watching", "watching-distribution")
        monkeypatch.setattr(registry, "default_registry", lambda: fresh)

    return install


def smoke(*methods, seeds=1, tasks=6, **settings):
    """Cells of the smallest runs."""
    name, experiment = find_experiment("sine")
    found = cells(name, experiment, "smoke", Overrides(methods=methods, seeds=seeds, tasks=tasks))
    settings = {"validation_interval": 4, "validation_tasks": 4, **settings}
    return [
        attrs.evolve(
            cell,
            test_tasks=4,
            method=attrs.evolve(cell.method, settings={**cell.method.settings, **settings}),
        )
        for cell in found
    ]


def told_of(runs, directory, together=None):
    """Run them as the command does: what a person is told."""
    console = Console(file=io.StringIO(), width=500)
    with Display(console, len(runs)) as display:
        assert not run_experiment(runs, directory, display, 1, together).failed
    return console.file.getvalue()


def outcomes(directory):
    """Everything that came out, without what depends on when and how fast it ran."""
    kept = ("scores", "summary", "validations", "best_position", "curves", "diverged")
    return {
        str(path.relative_to(directory)): {key: json.loads(path.read_text())[key] for key in kept}
        for path in sorted(directory.rglob("result.json"))
    }


def strictly(line):
    """JSON as the standard has it: no NaN, no Infinity."""
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# --- asked for, or not


def test_the_shipped_ones_are_silent_unless_asked_for(tmp_path, capsys):
    told_of(smoke("maml"), tmp_path)
    assert capsys.readouterr() == ("", "")
    assert len(list(tmp_path.rglob("result.json"))) == 1
    assert not list(tmp_path.rglob("tensorboard"))


def test_one_that_is_not_there_is_refused_before_anything_runs(metalearn, tmp_path):
    code, out, err = metalearn(*RUN, "--observe", "tensorbord", "--out", tmp_path / "o")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "unknown observer 'tensorbord': did you mean 'tensorboard'?" in err
    assert not (tmp_path / "o").exists()


def test_tensorboard_that_is_not_installed_is_refused_before_anything_runs(metalearn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, out, err = metalearn(*RUN, "--observe", "tensorboard", "--out", tmp_path / "o")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pip install -e './benchmarks[tensorboard]'" in err
    assert not (tmp_path / "o").exists()


def test_an_installed_one_is_told_of_every_run_unless_it_waits_to_be_asked(tmp_path, install):
    told = {"always": [], "asked": []}

    def always(run):
        return lambda event: told["always"].append((run["name"], event.kind))

    def asked(run):
        return lambda event: told["asked"].append((run["name"], event.kind))

    asked.on_request = True
    install(always=always, asked=asked)
    (maml, turtle) = smoke("maml", "turtle")
    told_of([maml], tmp_path)
    assert told["asked"] == []
    first = list(told["always"])
    assert first[0] == ("maml", "start")
    assert first[-1] == ("maml", "result")
    told_of([attrs.evolve(turtle, observe=("asked",))], tmp_path)
    assert told["asked"] == told["always"][len(first) :] != []
    # what is observed is no part of the record
    assert "observe" not in next(tmp_path.rglob("turtle/0/experiment.toml")).read_text()


# --- JSON lines


STRANGER = """
from metalearn_core import hookimpl

class Stranger:
    def __init__(self, run):
        self.name = run["name"]
    def __call__(self, event):
        if event.kind == "step":
            raise RuntimeError("not today")

@hookimpl
def metalearn_observers():
    return {"stranger": Stranger}
"""


def environment_with_a_stranger(site):
    """One in which another distribution brings an observer."""
    (site / "stranger-1.0.dist-info").mkdir(parents=True)
    (site / "metalearn_stranger.py").write_text(STRANGER)
    files = {
        "METADATA": "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n",
        "entry_points.txt": "[metalearn]\nstranger = metalearn_stranger\n",
    }
    for name, text in files.items():
        (site / "stranger-1.0.dist-info" / name).write_text(text)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_worker_processes_write_whole_lines_and_tell_of_a_failing_stranger_once(tmp_path, monkeypatch):
    monkeypatch.delenv("METALEARN_LOAD_PLUGINS")
    command = [sys.executable, "-m", "metalearn_benchmarks", *map(str, RUN[:-1]), "2", "-m", "maml"]
    command += ["-m", "turtle", "--observe", "json-lines", "--out", tmp_path / "out"]
    environment = environment_with_a_stranger(tmp_path / "site")
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told = "observer 'stranger' of stranger failed and is dropped: RuntimeError: not today"
    assert process.stderr.count(told) == 1
    runs = {}
    for line in process.stdout.splitlines():
        told = strictly(line)
        assert list(told) == ["experiment", "setting", "method", "seed", "kind", "position", "values"]
        runs.setdefault((told["experiment"], told["setting"], told["method"], told["seed"]), []).append(told)
    assert set(runs) == {("sine", "sine-5-shot", method, 0) for method in ("maml", "turtle")}
    for (*place, seed), events in runs.items():
        folder = Path(tmp_path, "out", *place, str(seed))
        kinds = [told["kind"] for told in events]
        assert (kinds[0], kinds[-3:]) == ("start", ["end", "testing", "result"])
        assert [told["position"] for told in events if told["kind"] == "step"] == list(range(1, 21))
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        validations = [told for told in events if told["kind"] == "validation"]
        assert [(told["position"], told["values"]["score"]) for told in validations] == [
            (line["position"], line["score"]) for line in metrics
        ]
        summary = json.loads((folder / "result.json").read_text())["summary"]
        assert events[-1]["values"]["mean"] == summary["mean"]
        assert [events[-1]["values"][key] for key in ("ci95_low", "ci95_high")] == summary["ci95"]
    for shown in ("maml, seed 0: median error", "report:", "MAML"):
        assert shown in process.stderr


def test_a_number_that_is_not_finite_is_null(tmp_path, capsys):
    (cell,) = smoke("maml")
    method = attrs.evolve(cell.method, options={"inner_lr": 1e12})
    told_of([attrs.evolve(cell, method=method, observe=("json-lines",))], tmp_path)
    out = capsys.readouterr().out
    told = [strictly(line) for line in out.splitlines()]
    (diverged,) = (event for event in told if event["kind"] == "diverged")
    assert "outer step 1" in diverged["values"]["message"]
    assert told[-1]["kind"] == "result"
    assert None in told[-1]["values"].values()
    observer = shipped.JsonLines({"experiment": "e", "setting": "s", "name": "m", "seed": 0})
    observer(Event("step", 3, {"loss": float("inf"), "other": float("nan"), "note": "NaN"}))
    assert strictly(capsys.readouterr().out)["values"] == {"loss": None, "other": None, "note": "NaN"}


# --- TensorBoard


def points(folder):
    """(tag, position, value) of everything in the run's event files, whatever a reader would leave out."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        held = accumulator.EventAccumulator(str(path), {"scalars": 0}, purge_orphaned_data=False)
        held.Reload()
        found += [(tag, p.step, p.value) for tag in held.Tags()["scalars"] for p in held.Scalars(tag)]
    return sorted(found)


def test_tensorboard_shows_what_the_record_says(metalearn, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    code, out, err = metalearn(*RUN, "-m", "maml", "--observe", "tensorboard", "--out", tmp_path)
    assert (code, err) == (0, "")
    assert "maml, seed 0: median error" in out
    folder = tmp_path / "sine/sine-5-shot/maml/0"
    found = points(folder)
    result = json.loads((folder / "result.json").read_text())
    shown = {tag: [(step, value) for t, step, value in found if t == tag] for tag, _, _ in found}
    assert set(shown) == {
        "training/loss", "validation/score", "validation/best", "test/mean", "test/median",
    }  # fmt: skip
    assert shown["validation/score"] == [(at, np.float32(score)) for at, score in result["validations"]]
    assert shown["test/mean"] == [(20, np.float32(result["summary"]["mean"]))]
    assert [at for at, _ in shown["training/loss"]] == list(range(1, 21))
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_a_long_run_is_thinned_at_the_same_places_wherever_it_was_cut(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    monkeypatch.setattr(shipped, "MAX_POINTS", 4)

    def run(folder, starts):
        for position, end in starts:
            observer = shipped.TensorBoard({"folder": folder})
            observer(Event("start", position, {"tasks": 40}))
            for at in range(position + 3, end + 1, 3):
                # what is after the checkpoint that the next sitting begins at has never been
                lost = at > next((p for p, _ in starts if p > position), 40)
                observer(Event("step", at, {"loss": -1.0 if lost else float(at)}))
            observer.close()
        return points(folder)

    whole = run(tmp_path / "whole", [(0, 39)])
    assert [at for _, at, _ in whole] == [12, 21, 30]
    # the second sitting took up a checkpoint from before what the first one had written last
    assert run(tmp_path / "cut", [(0, 33), (15, 18), (18, 39)]) == whole


def test_tensorboard_goes_on_without_a_double_or_a_lost_point_wherever_the_run_is_killed(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (cell,) = smoke("maml", tasks=8, checkpoint_seconds=0.0)
    cell = attrs.evolve(cell, observe=("tensorboard",))
    kinds = []

    def photograph(event):  # of what a run that is killed here leaves
        shutil.copytree(tmp_path / "whole", tmp_path / str(len(kinds)))
        kinds.append(event.kind)

    cells_module.run_cells([cell], tmp_path / "whole", [photograph])
    whole = points(tmp_path / "whole" / cell.folder)
    assert len(whole) == 8 + 3 * 2 + 2
    assert {"start", "step", "validation", "checkpoint", "end", "testing"} <= set(kinds)
    for index in range(1, len(kinds)):
        if index % 2:  # and killed while it began its new file
            _tear(tmp_path / str(index) / cell.folder / "tensorboard")
        cells_module.run_cells([cell], tmp_path / str(index), [])
        assert points(tmp_path / str(index) / cell.folder) == whole, (index, kinds[index])


def _tear(folder):
    (path,) = folder.iterdir()
    data = path.read_bytes()
    path.with_name(path.name.replace("tfevents.", "tfevents.9")).write_bytes(data[: len(data) * 2 // 3])


# --- strangers


def four():
    return smoke("maml", "turtle", seeds=2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What comes out where nobody looks on."""
    directory = tmp_path_factory.mktemp("alone")
    told_of(four(), directory)
    return outcomes(directory)


class Failing:
    """Fails when it is made, or at the first event of a kind, or at its end."""

    def __init__(self, at, error=None):
        self.at, self.error, self.calls = at, error or RuntimeError("not today"), 0

    def __call__(self, run):
        if self.at == "made":
            raise self.error
        return Watcher(self)


@attrs.define
class Watcher:
    plan: Failing

    def __call__(self, event):
        self.plan.calls += 1
        if event.kind == self.plan.at:
            raise self.plan.error

    def close(self):
        if self.plan.at == "closed":
            raise self.plan.error


@pytest.mark.parametrize("at", ["made", "start", "step", "validation", "end", "testing", "result", "closed"])
def test_one_that_fails_is_named_once_dropped_and_changes_nothing(tmp_path, install, alone, at):
    failing, fine = Failing(at), Failing("never")
    install(failing=failing, fine=fine)
    told = "observer 'failing' of watching-distribution failed and is dropped: RuntimeError: not today"
    assert told_of(four(), tmp_path).count(told) == 1  # though there were four runs
    assert outcomes(tmp_path) == alone
    assert fine.calls > 4 * 6
    if at in ("start", "step"):
        assert failing.calls == {"start": 4, "step": 4 * 5}[at]  # start, validation, checkpoint, engine, step


@pytest.mark.parametrize("error", [SystemExit(3), UserWarning("w"), ValueError("two\nlines"), KeyError("k")])
def test_whatever_it_raises(tmp_path, install, alone, error):
    install(failing=Failing("step", error))
    told = told_of(smoke("maml"), tmp_path)
    assert f"is dropped: {type(error).__name__}: {' '.join(str(error).split())}\n" in told
    assert outcomes(tmp_path).items() <= alone.items()


def test_two_that_fail_at_once_are_both_named(tmp_path, install):
    install(one=Failing("start"), two=Failing("start"))
    told = told_of(smoke("maml"), tmp_path)
    assert told.count("observer 'one'") == told.count("observer 'two'") == 1


def test_one_that_makes_nothing_callable_is_named(tmp_path, install):
    install(nothing=lambda run: None)
    told = told_of(smoke("maml"), tmp_path)
    assert "observer 'nothing' of watching-distribution failed and is dropped: UsageError" in told


class Meddling:
    """Writes into all that it is given, and moves all the global state that it can reach."""

    def __init__(self, run):
        self.meddle()
        run["method"]["settings"]["outer_lr"] = 100.0
        run.clear()

    def __call__(self, event):
        self.meddle()
        for key in event.values:
            event.values[key] = 1e9
        event.values["new"] = "x"

    def meddle(self):
        torch.manual_seed(1)
        torch.rand(3)
        random.seed(1)
        np.random.seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_num_threads(2)


def test_one_that_meddles_changes_no_number(tmp_path, install, alone):
    told, runs = [], []

    def other(run):
        runs.append(run)
        return told.append

    install(a_meddling=Meddling, other=other)
    assert "dropped" not in told_of(four(), tmp_path)
    assert outcomes(tmp_path) == alone
    assert torch.get_num_threads() == 1
    assert [run["method"]["settings"]["outer_lr"] for run in runs] == 4 * [0.001]
    assert not any("new" in event.values or 1e9 in event.values.values() for event in told)


def test_all_that_was_moved_is_put_back():
    def drawn():
        return torch.rand(3).tolist(), random.random(), np.random.rand()

    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    before = drawn()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    with global_state_restored():
        Meddling({"method": {"settings": {}}})
    with pytest.raises(KeyError), global_state_restored():
        Meddling({})  # it fails when all is moved
    assert drawn() == before
    state = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    assert state == (torch.float32, True, 1)


def test_seeds_together_have_each_its_own_and_a_failure_is_told_once(tmp_path, install):
    made = []

    def factory(run):
        watcher = Watcher(Failing("validation" if run["seed"] else "never"))
        made.append((run["seed"], run["seeds_together"], watcher))
        return watcher

    three = smoke("turtle", seeds=3)
    told_of(three, tmp_path / "alone", together=3)
    install(failing=factory)
    told = told_of(three, tmp_path / "watched", together=3)
    assert told.count("is dropped: RuntimeError: not today") == 1
    assert outcomes(tmp_path / "watched") == outcomes(tmp_path / "alone")
    assert [seed for seed, _, _ in made] == [0, 1, 2]
    assert all(seeds == [0, 1, 2] for _, seeds, _ in made)
    calls = [watcher.plan.calls for _, _, watcher in made]
    assert calls[0] > 6
    assert calls[1:] == [2, 2]  # start, validation


# --- how a run ends


class Broken(UpdateRule):
    def __init__(self, layout):
        super().__init__()

    def update(self, theta, signal, state):
        raise RuntimeError("as broken\nas can be")


def test_a_run_that_fails_or_is_stopped_is_told_as_such(tmp_path, install):
    told = []

    class Recorder:
        def __init__(self, run):
            pass

        def __call__(self, event):
            told.append(event)

        def close(self):
            told.append("closed")

    install(recorder=Recorder)
    rules = registry.default_registry().catalogues["metalearn_update_rules"]
    rules["broken"] = attrs.evolve(rules["lstm"], name="broken", factory=Broken)
    (cell,) = smoke("maml")
    broken = attrs.evolve(cell, method=attrs.evolve(cell.method, rule="broken", options={}))
    with pytest.raises(UsageError):
        cells_module.run_cells([broken], tmp_path / "a", [])
    assert told[-1] == "closed"
    said = "rule Broken (test_observers): update raised RuntimeError: as broken as can be"
    assert (told[-2].kind, told[-2].values["message"]) == ("failed", said)

    def stop(event):
        if event.kind == "step" and event.position == 3:
            raise KeyboardInterrupt

    told.clear()
    with pytest.raises(KeyboardInterrupt):
        cells_module.run_cells([cell], tmp_path / "b", [stop])
    assert told[-1] == "closed"
    assert (told[-2].kind, told[-2].position) == ("stopped", 3)
    told.clear()
    cells_module.run_cells([cell], tmp_path / "b", [])
    assert (told[0].kind, told[0].position) == ("start", 3)
    assert [event if event == "closed" else event.kind for event in told[-3:]] == [
        "testing",
        "result",
        "closed",
    ]


class Ends(UpdateRule):
    """θ is what the rule says, whatever came before; nothing can be learned."""

    def __init__(self, layout):
        super().__init__()

    def update(self, theta, signal, state):
        return torch.ones_like(theta), state


@pytest.mark.filterwarnings("error")
def test_a_training_that_cannot_learn_is_told_in_one_line_of_the_run(tmp_path, install):
    install()
    rules = registry.default_registry().catalogues["metalearn_update_rules"]
    rules["ends"] = attrs.evolve(rules["gradient-descent"], name="ends", factory=Ends)
    runs = smoke("maml", seeds=2, tasks=16)
    runs = [attrs.evolve(run, method=attrs.evolve(run.method, rule="ends", options={})) for run in runs]
    lines = told_of(runs, tmp_path, (0, 1)).splitlines()
    told = [line for line in lines if "the meta-gradient was exactly 0, for θ⁰ and every φ" in line]
    assert len(told) == 1
    assert "maml, seeds 0-1: rule Ends (" in told[0]


# --- what they are told of the run


def test_they_are_told_which_run_it_is_and_whether_it_goes_on(tmp_path, install, monkeypatch):
    told, events = [], []

    def watching(run):
        told.append(run)
        return events.append

    install(watching=watching)
    (cell,) = smoke("maml")
    with monkeypatch.context() as patch:  # cut off before the test
        patch.setattr(cells_module.Evaluation, "build", lambda *_: pytest.fail("stopped here"))
        with pytest.raises(pytest.fail.Exception):
            cells_module.run_cells([cell], tmp_path, [])
    first, last = events[0], [event for event in events if event.kind == "step"][-1]
    assert (first.kind, first.values["resumed"]) == ("start", 0.0)
    assert last.values["outer_lr"] == 0.001
    told_of([cell], tmp_path)
    before, after = told
    assert (before["resumed"], after["resumed"]) == (False, True)
    assert before["run_id"] == after["run_id"]
    assert [event.values["resumed"] for event in events if event.kind == "start"] == [0.0, 1.0]
    (path,) = tmp_path.rglob("result.json")
    result = json.loads(path.read_text())
    assert {key: after[key] for key in ("commit", "versions")} == {
        key: result[key] for key in ("commit", "versions")
    }
    assert {"sine", "maml", "seed 0", "smoke", "gradient-descent"} <= set(after["tags"])
    (ended,) = [event for event in events if event.kind == "result"]
    rows = np.array(result["scores"]["sine"])
    by_step = [ended.values[f"score_after_{step}"] for step in range(rows.shape[1])]
    np.testing.assert_allclose(by_step, rows.mean(0))


def test_a_step_tells_the_rate_that_it_was_taken_with(tmp_path, install):
    events = []
    install(watching=lambda run: events.append)
    rate = {"start": 0.1, "schedule": "steps", "at": [0.5]}
    (cell,) = smoke("maml", outer_lr=rate)
    cells_module.run_cells([cell], tmp_path, [])
    rates = [event.values["outer_lr"] for event in events if event.kind == "step"]
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 3)


@pytest.mark.parametrize("asks", [True, False])
def test_a_step_tells_the_norm_of_its_gradient_where_an_observer_asks(tmp_path, install, asks):
    events = []

    class Watch:
        gradient_norm = asks

        def __init__(self, run):
            pass

        def __call__(self, event):
            events.append(event)

    install(watching=Watch)
    (cell,) = smoke("maml")
    cells_module.run_cells([cell], tmp_path, [])
    norms = [event.values.get("gradient_norm") for event in events if event.kind == "step"]
    assert len(norms) == 6
    assert all(norm > 0 for norm in norms) if asks else norms == [None] * 6


def test_nobody_asks_for_the_commit_where_nobody_is_told(tmp_path, monkeypatch):
    from metalearn_benchmarks.runs.observers import description

    monkeypatch.setattr(description, "commit", lambda: pytest.fail("asked"))
    assert not told_of(smoke("maml"), tmp_path).count("failed")
