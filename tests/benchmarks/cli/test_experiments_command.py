"""`metalearn experiments`: how many runs, and about how long they take here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalearn_benchmarks.experiments.catalogue import Overrides, cells, experiments, find_experiment
from metalearn_benchmarks.runs.durations.estimates import (
    COMPILED_STEPS,
    Timing,
    TimingCache,
    estimate,
    format_duration,
    program_digest,
)
from metalearn_benchmarks.runs.durations.measuring import EventTimes, time_program
from metalearn_core import Event
from metalearn_core.settings import LONG_RUN

SCALES = ("small", "smoke", "paper")
MINE = """
extends = "sine"
methods = ["maml", "train-from-scratch"]
[axes.maml]
steps = [1, 2]
[axes.train-from-scratch]
steps = [3]
[scale.smoke]
seeds = 2
test_tasks = 20
settings = { tasks = 400, validation_interval = 100, validation_tasks = 20 }
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for every test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def runs(name, scale="smoke", **overrides):
    return cells(*find_experiment(name), scale, Overrides(**overrides))


def timing(seconds=1.0, seeds=1):
    return Timing(seeds, "eager", set_up=seconds, step=0.0, validation=0.0, steps=0, validations=0)


def listed(metalearn, *arguments):
    code, out, err = metalearn("experiments", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_each_experiment_says_what_it_reproduces_and_how_many_runs_it_is(metalearn):
    for scale in ("smoke", "small", "paper"):
        lines = {line["experiment"]: line for line in listed(metalearn, "--scale", scale)}
        assert set(lines) == set(experiments())
        for name, line in lines.items():
            assert line["runs"] == len(runs(name, scale))
            assert line["seconds"] is None
            assert line["scale"] == scale
        assert "Figure 3.2" in lines["figure-3.2"]["reproduces"]
    out = metalearn("experiments")[1]
    assert "54 runs, not timed" in out
    assert "Add --measure to time what was not timed." in out
    lines = {line["experiment"]: line for line in listed(metalearn)}
    assert (lines["sine"]["scale"], lines["sine"]["runs"]) == ("paper", 2)
    assert {line["scale"] for name, line in lines.items() if name != "sine"} == {"small"}


def test_measuring_tells_a_time_and_keeps_it(metalearn, cache):
    Path("mine.toml").write_text(MINE)
    (before,) = listed(metalearn, "mine.toml", "--scale", "smoke")
    assert (before["runs"], before["programs"], before["timed"]) == (6, 3, 0)
    code, out, err = metalearn("experiments", "mine.toml", "--scale", "smoke", "--measure")
    assert code == 0, err
    assert [line for line in out.splitlines() if line.startswith("timing")] == [
        "timing mine: maml,steps=1",
        "timing mine: maml,steps=2",
        "timing mine: train-from-scratch,steps=3",
    ]
    assert re.search(r"^    scale smoke: 6 runs, about \d+ s$", out, re.MULTILINE)
    assert "not timed" not in out
    (after,) = listed(metalearn, "mine.toml", "--scale", "smoke")
    assert after["timed"] == 3
    assert 0 < after["seconds"] < 60
    assert "timing" not in metalearn("experiments", "mine.toml", "--scale", "smoke", "--measure")[1]
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} == {".json"}


def test_an_estimate_is_of_the_order_of_the_real_run(metalearn):
    Path("mine.toml").write_text(MINE)
    (cell,) = runs("mine.toml", methods=["maml"], seeds=1, steps=5)
    told = time_program(cell, 1, 1)
    from metalearn_benchmarks.runs.training import run_cells

    since = time.monotonic()
    run_cells([cell], Path("out"), [])
    real = time.monotonic() - since
    # a factor of 2 on a quiet machine; tests share theirs with others
    assert real / 4 < told.seconds < real * 4
    assert (told.steps, told.validations, told.engine) == (400, 5, "eager")
    assert told.step > told.set_up / 400 > 0


@pytest.mark.parametrize(
    ("method", "steps", "validations"),
    [("train-from-scratch", 0, 0), ("finetuning", 100, 3), ("lstm", 100, 3)],
)
def test_every_kind_of_method_can_be_timed(method, steps, validations):
    (cell,) = runs("sine", methods=[method])
    told = time_program(cell, 1, 1)
    assert (told.seeds, told.steps, told.validations) == (1, steps, validations)
    assert told.seconds >= told.set_up > 0


def test_seeds_that_would_train_together_are_timed_together(monkeypatch):
    from metalearn_benchmarks.runs import seed_groups

    monkeypatch.setattr(seed_groups, "group_size", lambda cell, parts, together, programs: 3)
    (cell,) = runs("sine", methods=["maml"])
    assert time_program(cell, 30, 1).seeds == 3
    assert time_program(cell, 2, 1).seeds == 2


def test_timing_tells_no_installed_observer(monkeypatch):
    from metalearn_core import Registry, hookimpl, registry

    made = []

    class Plugin:
        @hookimpl
        def metalearn_observers(self):
            return {"loud": lambda run: made.append(run)}

    fresh = Registry()
    fresh.register(Plugin(), "loud", "loud-distribution")
    monkeypatch.setattr(registry, "default_registry", lambda: fresh)
    (cell,) = runs("sine", methods=["train-from-scratch"])
    time_program(cell, 1, 1)
    assert made == []


def test_a_watch_counts_seeds_as_one_and_the_engine_to_its_step(monkeypatch):
    clock = iter([1.0, 1.5, 3.0, 3.5, 4.0, 6.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    watch = EventTimes(last=0.0)
    for event in (
        *(Event("validation", 0), Event("validation", 0)),  # two seeds, from 0 to 1.5
        Event("engine", 1, {"engine": "compiled"}),
        *(Event("step", 1), Event("step", 1)),  # from 1.5 to 4
        Event("step", 2),
    ):
        watch(event)
    assert watch.engine == "compiled"
    assert watch.durations("validation") == [1.5]
    assert watch.durations("step") == [2.5, 2.0]


def test_jobs_go_to_the_worker_that_is_free_first():
    times = TimingCache.load()
    times.start = 10.0
    found = runs("sine", methods=["maml", "lstm", "turtle"], seeds=2)
    maml, lstm, turtle = found[:3]
    assert estimate(found, times, 2).seconds is None
    times.put(maml, timing(5.0))
    times.put(lstm, timing(1.0))
    assert attrs.astuple(estimate(found, times, 2)) == (6, 3, 2, 2, None)
    times.put(turtle, timing(2.0))
    # of each seed 5, 1, 2: one after the other, or 5 + 1 + 2 and 1 + 2 + 5
    assert estimate(found, times, 1).seconds == 10 + 16
    assert estimate(found, times, 2).seconds == 20 + 8
    assert estimate(found, times, 99).workers == 6
    times.put(maml, timing(5.0, seeds=2))
    assert estimate(found, times, 1).seconds == 10 + 5 + 2 * 3


def test_a_sister_that_was_timed_tells_how_long_another_length_takes():
    times = TimingCache.load()
    (small,), (smoke,), (paper,) = (runs("sine", scale, methods=["maml"], seeds=1) for scale in SCALES)
    # 2,000 steps with 5 validations of 200 tasks; and 100 steps with 3 of 50
    times.put(
        small,
        Timing(1, "eager", 3.0, step=0.01, validation=2.0, steps=2000, validations=5, validation_tasks=200),
    )
    times = TimingCache.load()
    assert times.get(smoke) is None
    assert estimate([smoke], times, 1).seconds == pytest.approx(3 + 100 * 0.01 + 3 * 0.5)
    assert estimate([paper], times, 1).seconds is None  # it would be compiled
    (longer,) = runs("sine", "paper", methods=["maml"], seeds=1, tasks=35_000)
    times.put(
        longer, Timing(1, "compiled", 30.0, 0.001, 4.0, steps=35_000, validations=15, validation_tasks=1000)
    )
    assert estimate([paper], times, 1).seconds == pytest.approx(30 + 70 + 29 * 4)
    for other in (runs("sine", methods=["fo-maml"]), runs("sine", methods=["maml"], steps=2)):
        assert estimate(other, times, 1).seconds is None
    (untrained,) = runs("sine", "small", methods=["train-from-scratch"])
    times.put(untrained, timing())
    assert estimate(runs("sine", methods=["train-from-scratch"]), times, 1).seconds is None
    assert COMPILED_STEPS == LONG_RUN


def test_rows_of_two_experiments_are_one_program_and_other_numbers_another():
    (sine,) = runs("sine", "paper", methods=["maml"], seeds=1)
    of_figure = runs("figure-3.3", "paper", methods=["maml"], seeds=1)
    figure = next(cell for cell in of_figure if (cell.setting, cell.name) == (sine.setting, sine.name))
    assert sine.experiment != figure.experiment
    assert program_digest(sine) == program_digest(figure)
    others = [
        *runs("sine", methods=["maml"]),
        *runs("sine", "paper", methods=["maml"], seeds=1, steps=2),
        *runs("sine", "paper", methods=["turtle"], seeds=1),
        *runs("sine", "paper", methods=["maml"], seeds=1, threads=2),
    ]
    assert len({program_digest(cell) for cell in (sine, *others)}) == 5


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 0}', '{"format": 1, "start": 1, "programs": {"a": {}}}']
)
def test_a_damaged_cache_is_an_empty_one(text):
    times = TimingCache.load()
    (cell,) = runs("sine", methods=["maml"])
    times.put(cell, timing())
    assert TimingCache.load().get(cell) == timing()
    times.path.write_text(text)
    assert TimingCache.load().get(cell) is None


def test_a_cache_that_cannot_be_written_is_said(metalearn, cache):
    cache.write_text("in the way")
    Path("mine.toml").write_text(MINE)
    code, _, err = metalearn("experiments", "mine.toml", "--scale", "smoke", "--measure", "--json")
    assert (code, err.splitlines()[-1].count("set XDG_CACHE_HOME to another folder")) == (2, 1)
    assert "Traceback" not in err
    assert listed(metalearn, "sine")[0]["seconds"] is None


def test_other_versions_have_times_of_their_own(monkeypatch):
    from metalearn_benchmarks.runs.durations import estimates

    before = TimingCache.load().path
    assert before == TimingCache.load().path
    monkeypatch.setattr(estimates, "version", lambda name: "99")
    assert TimingCache.load().path != before


@given(st.floats(0, 1e9))
def test_durations_are_told_within_their_rounding(seconds):
    count, unit = format_duration(seconds).split()
    size = {"s": 1, "min": 60, "h": 3600, "days": 86_400}[unit]
    assert float(count) * size == pytest.approx(seconds, rel=0.34, abs=1)


def test_the_list_is_quick_and_needs_no_torch():
    program = (
        "import sys\nfrom metalearn_benchmarks import cli\nsys.argv[1:] = ['experiments']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert float(done.stdout.splitlines()[-1]) < 4  # seconds of a core; it takes about one
