"""Ctrl-C ends a command within a second or two, wherever it comes, and it goes on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from waiting import LONG, wait_until

from metalearn_benchmarks.cli import run
from metalearn_benchmarks.cli.support.progress import Display
from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.runs.training import run_cells
from metalearn_core.kernels import programs

PLACE = "sine/sine-5-shot/maml/0"
RUN = ("run", "sine", "--scale", "smoke", "--tasks", 60, "-m", "maml", "--workers", 1)


def numbers(directory):
    kept = ("scores", "summary", "validations", "curves")
    found = json.loads((directory / PLACE / "result.json").read_text())
    lines = [json.loads(line) for line in (directory / PLACE / "metrics.jsonl").read_text().splitlines()]
    return [[line["position"] for line in lines], {key: found[key] for key in kept}]


@pytest.fixture(autouse=True)
def _no_page(monkeypatch):
    monkeypatch.setattr(run, "write_and_print_report", lambda directory, console: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    name, experiment = find_experiment("sine")
    directory = tmp_path_factory.mktemp("whole")
    run_cells(cells(name, experiment, "smoke", Overrides(methods=["maml"], tasks=60)), directory, [])
    return numbers(directory)


def press():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def heard(monkeypatch):
    """What the display is told; `at` is called with every event first."""
    events = []

    def hear(at):
        def event(self, label, event):
            events.append((event.kind, event.position))
            at(event)

        monkeypatch.setattr(Display, "event", event)
        return events

    return hear


@pytest.mark.parametrize(
    ("kind", "position"), [("evaluating", 0), ("evaluating", 50), ("testing", 60), ("start", 0)]
)
def test_an_evaluation_is_left_between_two_batches(metalearn, tmp_path, whole, heard, kind, position):
    events = heard(lambda event: press() if (event.kind, event.position) == (kind, position) else None)
    code, _, err = metalearn(*RUN, "--out", tmp_path)
    assert code == 130
    assert "everything is saved" in err
    assert "the same command goes on" in err
    assert events[-1] == (kind, position)  # nothing came after it
    assert not list(tmp_path.rglob("result.json"))
    events = heard(lambda event: None)
    events.clear()
    assert metalearn(*RUN, "--out", tmp_path)[0] == 0
    assert numbers(tmp_path) == whole
    steps = [at for told, at in events if told == "step"]
    assert steps == list(range(position + 1, 61))  # none twice


def test_a_compilation_is_left_in_its_middle(metalearn, tmp_path, heard, monkeypatch):
    begun = []

    def slow(*_arguments, **_options):
        begun.append(time.monotonic())
        threading.Timer(0.2, press).start()
        time.sleep(30)

    monkeypatch.setattr(programs, "compiled", slow)
    events = heard(lambda event: None)
    code, _, err = metalearn(*RUN, "--engine", "compiled", "--out", tmp_path)
    assert code == 130
    assert time.monotonic() - begun[0] < 5
    assert "the same command goes on" in err
    assert events[-2:] == [("checkpoint", 0), ("compiling", 0)]
    assert not list(tmp_path.rglob("error.txt"))


def test_a_step_is_not_left_in_its_middle(metalearn, tmp_path, whole, heard, monkeypatch):
    """Its numbers would be lost."""
    from metalearn_core.kernels import engine

    whole_step, left = engine.eager_step, []

    def step(*arguments):
        answer = whole_step(*arguments)
        if not left:
            press()
            time.sleep(0.1)  # where the signal is heard
            left.append(answer)
        return answer

    monkeypatch.setattr(engine, "eager_step", step)
    events = heard(lambda event: None)
    assert metalearn(*RUN, "--out", tmp_path)[0] == 130
    assert left
    assert events[-1][1] == 1  # the step was taken and told of
    assert metalearn(*RUN, "--out", tmp_path)[0] == 0
    assert numbers(tmp_path) == whole


@pytest.mark.nightly
@pytest.mark.parametrize("workers", [1, 2])
def test_a_compiler_is_left_in_its_middle(tmp_path, workers):
    """As in a terminal: every process of the group hears it, the C++ compiler too; the engine stays."""
    program = (
        "from metalearn_benchmarks.cli import main, run; run.write_and_print_report = lambda *_: None; main()"
    )
    arguments = ["-m", "turtle", "--engine", "compiled", "--workers", str(workers), "--out", str(tmp_path)]
    command = [sys.executable, "-c", program, *map(str, RUN[:6]), "-m", "maml", *arguments]
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    for seconds in (3, 8):  # while it is traced, while C++ is compiled
        process = subprocess.Popen(
            command, env=os.environ | caches, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        wait_until(lambda: list(tmp_path.rglob("checkpoint.pt")))
        time.sleep(seconds)
        pressed = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=LONG)
        assert process.returncode == 130, err
        assert time.monotonic() - pressed < 4
        assert "Traceback" not in err
        assert not list(tmp_path.rglob("result.json"))
    subprocess.run(command, check=True, capture_output=True, env=os.environ | caches, timeout=LONG)
    engines = [json.loads(path.read_text())["engine"] for path in tmp_path.rglob("result.json")]
    assert engines == ["compiled"] * 2
