"""`metalearn speed`: peers do the same work, the one that does not is not timed."""

import importlib.util
import json
import os
import signal
import time

import attrs
import pytest
import torch

from metalearn_benchmarks.speed import (
    comparison,
    cores,
    drawing,
    fresh_process,
    measure,
    outer_steps,
    settings,
)
from metalearn_benchmarks.speed.peers import engine, functional, jax_program, shipped
from metalearn_benchmarks.speed.peers.loops import clone_module
from metalearn_benchmarks.speed.settings import GRADIENT, OUTER, Panel, Setting
from metalearn_benchmarks.speed.timing import Sample, row, timings
from metalearn_benchmarks.speed.work import Work
from metalearn_core import UsageError

NEEDS = {"jax": "jax", "jax scan": "jax", "TorchOpt": "torchopt"}
SMALL = Setting(rule="maml", tasks=2, steps=2)
FOREIGN = ["higher loop", "torch.func", "TorchOpt", "jax"]


def require(peer):
    if importlib.util.find_spec(NEEDS.get(peer, "torch")) is None:
        pytest.skip(f"needs {NEEDS[peer]}, which is not installed")


def times(*names, setting=SMALL, whats=(GRADIENT,)):
    return measure.measure(setting, names, 0.0, whats)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("rule", settings.RULES)
@pytest.mark.parametrize("peer", FOREIGN)
def test_peers_have_the_same_meta_gradient(peer, rule, order):
    require(peer)
    work = Work.of(Setting(rule=rule, tasks=2, steps=2, order=order))
    ours, theirs = (measure._aligned(work, measure.call(name, work)()) for name in ("eager", peer))
    assert measure._distance(theirs, ours) < 1e-4


IMAGES = Setting(learner="conv-4", tasks=2, steps=2, size=16, width=4, shots=2)
WITH_IMAGES = ["higher loop", "clone loop", "torch.func"]


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("rule", ["maml", "turtle"])
@pytest.mark.parametrize("peer", WITH_IMAGES)
def test_peers_have_the_same_meta_gradient_on_images(peer, rule, order):
    work = Work.of(attrs.evolve(IMAGES, rule=rule, order=order))
    assert work.task.support.inputs.shape == (2, 10, 1, 16, 16)
    exact = {"learner": work.learner.to("cpu", torch.float64), "theta": work.theta.double()}
    work = attrs.evolve(work, task=work.task.to("cpu", torch.float64), rule=work.rule.double(), **exact)
    ours, theirs = (measure._aligned(work, measure.call(name, work)()) for name in ("eager", peer))
    assert measure._distance(theirs, ours) < 1e-9


@pytest.mark.parametrize("peer", WITH_IMAGES)
def test_peers_take_the_same_outer_steps_on_images(peer):
    work = Work.of(IMAGES)
    start = work.theta.clone()
    ours, theirs = (
        outer_steps.clocked(name, work, 0.0).losses[: outer_steps.LEFT_OUT] for name in ("eager", peer)
    )
    assert theirs == pytest.approx(ours, rel=1e-3)
    assert torch.equal(work.theta, start)


def test_a_clone_is_changed_alone_and_lets_gradients_through():
    module = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Sequential(torch.nn.Linear(1, 1)))
    clone, before = clone_module(module), [p.clone() for p in module.parameters()]
    clone[1][0]._parameters["bias"] = clone[1][0]._parameters["bias"] + 1
    inputs = torch.ones(1, 2)
    assert torch.allclose(clone(inputs), module(inputs) + 1)
    grads = torch.autograd.grad(clone(inputs).sum(), list(module.parameters()))
    assert [g.shape for g in grads] == [p.shape for p in before]
    assert all(map(torch.equal, module.parameters(), before))


def test_operations_on_images_grow_with_size_width_and_shots():
    small, wide, large, shots = (
        Work.of(attrs.evolve(IMAGES, **changed)).operations
        for changed in ({}, {"width": 8}, {"size": 32}, {"shots": 4})
    )
    first, later = 2 * 9 * 4 * 16**2, 2 * 9 * 4 * 4 * (8**2 + 4**2 + 2**2)
    images = 2 * 75 + 2 * 2 * 2 * 10  # the query set once, the support set in two steps of two gradients
    expected = 3 * images * (first + later + 2 * 4 * 5)
    assert small == pytest.approx(expected)
    assert wide > 2 * small
    assert large > 3.5 * small
    assert small < shots < 2 * small


@pytest.mark.parametrize("width", [10, 20])
def test_the_base_learner_has_the_width_asked_for(width):
    work = Work.of(attrs.evolve(SMALL, width=width))
    ours, theirs = (measure._aligned(work, measure.call(name, work)()) for name in ("eager", "torch.func"))
    assert work.theta.numel() == width**2 + 4 * width + 1
    assert measure._distance(theirs, ours) < 1e-4


@pytest.mark.parametrize(
    ("peer", "seeds"), [*((peer, 1) for peer in FOREIGN), ("jax scan", 1), ("jax scan", 2)]
)
def test_peers_take_the_same_outer_steps(peer, seeds):
    require(peer)
    work = Work.of(attrs.evolve(SMALL, rule="turtle", seeds=seeds))
    ours, theirs = (outer_steps.clocked(name, work, 0.0).losses for name in ("eager", peer))
    assert len(set(ours)) == len(ours) == outer_steps.LEFT_OUT + 3
    assert theirs[: len(ours)] == pytest.approx(ours, rel=1e-4)


def _clock(ends):
    return outer_steps.Clock(0.0, 0.0, ends, [0.0 for _ in ends], [1 for _ in ends])


def test_steps_that_end_together_share_the_time_of_their_call():
    """Three that are left out, then calls of 4 steps in 4 seconds, which are told of within a millisecond."""
    calls = [3 + 4 * call + step / 1000 for call in range(1, 6) for step in range(4)]
    assert _clock([1.0, 2.0, 3.0, *calls]).times[1:] == pytest.approx([1.0] * 4)
    assert _clock([float(end) for end in range(12)]).times == [1.0] * 9


def test_a_program_of_many_steps_is_timed_by_its_calls(monkeypatch):
    """The first scan of 20 steps compiles; then 3 scans are waited for."""
    now = iter([50.0, 54.0, 58.0, 62.0])
    monkeypatch.setattr(outer_steps.time, "perf_counter", lambda: next(now))
    clock = outer_steps.Clock(1.0, started=0.0)
    for _ in range(3):
        clock(*[0.0] * 20)
    with pytest.raises(outer_steps.Enough):
        clock(*[0.0] * 20)
    assert clock.times == pytest.approx([0.2] * 3)


def test_a_scan_of_jax_goes_on_where_the_last_one_ended():
    require("jax")
    work = Work.of(SMALL)
    tasks = outer_steps.stream(work.family, work.learner)
    scan, step = jax_program.jax_scanned_steps(work, 3), jax_program.jax_outer_step(work)
    ours = [loss for start in (0, 6) for loss in scan(tasks.take(start, 6))]
    assert ours == pytest.approx([step(tasks.take(start, 2)) for start in range(0, 12, 2)], rel=1e-5)


@pytest.mark.nightly
def test_the_compiled_engine_is_timed_by_both_measures():
    found = times("eager", "compiled", setting=attrs.evolve(SMALL, steps=1), whats=settings.MEASURED)
    assert [(t.what, t.peer) for t in found] == [
        (what, peer) for what in (GRADIENT, OUTER) for peer in ("eager", "compiled")
    ]
    assert not any(t.note for t in found)
    for timing in found:
        assert timing.rounds >= 3
        assert timing.quartiles[0] <= timing.median <= timing.quartiles[1]
        assert 0 < timing.share_of_peak < 1
        assert timing.first > 0
        assert timing.n == 1_761
    assert [t.ratio for t in found if t.peer == "compiled"] == [1, 1]
    assert found[0].ratio == found[0].median / found[1].median


def test_a_peer_with_another_gradient_is_not_timed(monkeypatch):
    def first_order(work):
        return engine.eager(Work.of(attrs.evolve(work.setting, order="first")))

    monkeypatch.setitem(shipped.PEERS, "wrong", first_order)
    monkeypatch.setitem(
        outer_steps.RUNS, "wrong", outer_steps._torch_adam(lambda work: halved(functional.torch_func(work)))
    )
    found = times("wrong", "eager", whats=settings.MEASURED)
    assert [t.median is None for t in found] == [True, False, True, False]
    assert "its gradient is" in found[0].note
    assert "its losses are" in found[2].note
    assert found[1].ratio == 1


def test_on_images_one_meta_batch_of_several_is_enough_and_none_is_not(monkeypatch):
    work, asked = Work.of(IMAGES), []

    def off(distances):
        def distance(theirs, ours):
            asked.append(float(ours[0][0]))
            return distances[(len(asked) - 1) % len(distances)]

        monkeypatch.setattr(measure, "_distance", distance)
        return measure._meta_gradients(work, ["clone loop"], 0.0, lambda text: None)["clone loop"]

    assert isinstance(off([1.0, 1.0, 0.0]), Sample)
    assert len(asked) == len(set(asked)) == 3
    asked.clear()
    assert off([0.5, 0.4, 1.0, 1.0]) == "its gradient is 4.0e-01 off: not timed"
    assert len(asked) == measure.TRIED["conv-4"]


def halved(peer):
    """The gradients of θ⁰ with every other element's sign turned."""

    def gradient(task):
        loss, grad, *phi = peer.gradient(task)
        signs = 1 - 2 * (torch.arange(len(grad)) % 2)
        return [loss, grad * signs, *phi]

    return attrs.evolve(peer, gradient=gradient)


def test_a_peer_that_is_missing_or_fails_is_said(monkeypatch):
    def absent(*_):
        raise ImportError("no", name="jax")

    def broken(*_):
        raise OSError("undefined symbol\nand more")

    for table in (shipped.PEERS, outer_steps.RUNS):
        monkeypatch.setitem(table, "jax", absent)
        monkeypatch.setitem(table, "TorchOpt", broken)
    found = times("jax", "TorchOpt", "eager", whats=settings.MEASURED)
    notes = ["not installed (jax)", "failed (OSError: undefined symbol)", ""]
    assert [t.note for t in found] == notes * 2
    assert [t.median is None for t in found] == [True, True, False] * 2
    assert row(found[0])["ms, median"] == "not installed (jax)"


def test_an_engine_that_falls_back_is_not_timed(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    (found,) = times("compiled", whats=(OUTER,))
    assert found.median is None
    assert "no C++ compiler" in found.note


def test_operations_grow_with_tasks_steps_and_order():
    sizes = [
        Work.of(Setting(rule="turtle", tasks=tasks, steps=steps, order=order)).operations
        for tasks, steps, order in ((1, 1, "first"), (2, 1, "first"), (1, 2, "first"), (1, 2, "second"))
    ]
    assert sizes[1] == 2 * sizes[0]
    assert sizes[0] < sizes[2] < sizes[3]
    # 5 hidden layers of 20: 1,640 weights for each of 1,761 coordinates, forward and twice that backward
    assert sizes[0] == pytest.approx(6 * 1_640 * 1_761, rel=0.05)


def test_threads_are_those_asked_for_and_given_back():
    before = os.sched_getaffinity(0), torch.get_num_threads()
    with cores.pinned(1):
        assert torch.get_num_threads() == 1
        assert {len(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task")} == {1}
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before


def test_the_grids():
    (few,) = settings.grid({"rule": ("lstm",), "tasks": (4,)}, whole=False)
    assert few == Setting(rule="lstm", tasks=4)
    whole = settings.grid({"tasks": (100,), "threads": ()}, whole=True)
    assert len(whole) == len(set(whole)) == 3 * 3 * 2 * len({1, settings.CORES})
    images = settings.grid({"size": (84,)}, whole=False, learner="conv-4")
    assert [(s.rule, s.tasks, s.size, s.width) for s in images] == [("maml", n, 84, 32) for n in (1, 4)]
    assert str(images[1]) == (
        "maml, 4 tasks, T = 5, second order, conv-4, 5-way 1-shot, 84 x 84, width 32, 1 thread"
    )
    assert len(settings.grid({}, whole=True, learner="conv-4")) == 3 * 2 * 2 * 2 * 2 * len(
        {1, settings.CORES}
    )
    with pytest.raises(UsageError, match="threads must be at most"):
        Setting(threads=settings.CORES + 1)


def drawn(setting):
    sample = Sample(1.0, [setting.tasks * setting.steps * setting.seeds * 1e-3] * 3)
    whats = {panel.what for panel in settings.PANELS if panel.has(setting)}
    return [
        t
        for what in sorted(whats)
        for t in timings(setting, what, setting.width**2, {"compiled": sample}, 1e6, 1e9)
    ]


def test_the_figure_has_a_line_for_each_rule_in_each_panel():
    found = [t for s in settings.lines({"rule": ("maml", "lstm")}) for t in drawn(s)]
    figure = drawing.draw(found)
    assert [axes.get_xlabel() for axes in figure.axes] == [panel.label for panel in settings.PANELS]
    expected = ([1, 4, 25, 100], [1, 5, 10], [100, 400, 1600, 6400], [1, 3, 10, 30])
    for axes, points in zip(figure.axes, expected, strict=True):
        *curves, linear = axes.get_lines()
        assert [line.get_label() for line in curves] == ["maml", "lstm"]
        assert [list(line.get_xdata()) for line in curves] == [points] * 2
        (x0, *_, x1), (y0, *_, y1) = linear.get_xdata(), linear.get_ydata()
        assert y1 / y0 == pytest.approx(x1 / x0)
        assert axes.get_xscale() == axes.get_yscale() == "log"


def test_several_seeds_are_timed_together_and_by_this_engine_alone():
    setting = attrs.evolve(SMALL, seeds=3)
    found = {t.peer: t for t in measure.measure(setting, ["eager", "torch.func"], 0.0, [settings.OUTER])}
    assert found["eager"].median > 0
    assert "one seed at a time" in found["torch.func"].note
    one = Work.of(SMALL).operations
    assert Work.of(setting).operations == 3 * one


def test_nothing_to_draw_is_said():
    with pytest.raises(UsageError, match="nothing to draw: compiled failed"):
        drawing.draw(timings(SMALL, GRADIENT, 1, {"compiled": "failed"}, 1.0, 1.0))


def test_a_further_panel_is_one_line():
    panels = [*settings.PANELS, Panel("cores", "threads", (1,), "threads")]
    found = [t for s in settings.lines({"rule": ("maml",)}, panels) for t in drawn(s)]
    assert len(drawing.draw(found, panels).axes) == 5


def test_a_fresh_process_tells_memory():
    (timing,) = times("eager")
    found = fresh_process.with_memory(timing)
    assert found.note == ""
    assert 0 <= found.call_memory < found.process_memory
    assert attrs.evolve(found, call_memory=None, process_memory=None) == timing


def test_starts_are_timed_in_fresh_processes_that_share_empty_caches(monkeypatch):
    (timing,) = times("eager")
    seen = []

    def child(part, timing, variables):
        folders = [variables[name] for name in fresh_process.CACHES]
        seen.append((part, *folders, *map(os.path.exists, folders)))
        return {"done": time.time() + len(seen)}

    monkeypatch.setattr(fresh_process, "_child", child)
    found = fresh_process.with_starts(timing)
    assert (round(found.cold), round(found.warm)) == (1, 2)
    assert seen[0] == seen[1]
    assert not any(seen[0][1 + len(fresh_process.CACHES) :])
    assert fresh_process.with_starts(attrs.evolve(timing, peer="torch.func")).cold is None


def test_a_process_that_fails_is_a_note(monkeypatch):
    (timing,) = times("eager")
    found = fresh_process.with_memory(attrs.evolve(timing, peer="nobody"))
    assert found.call_memory is None
    assert found.note == "its own process failed: KeyError: 'nobody'"


ONE = ("--rule", "maml", "--tasks", 2, "--steps", 1, "--seconds", 0)


def test_the_command_prints_every_row_as_data(metalearn):
    code, out, err = metalearn("speed", *ONE, "--json", "-p", "eager", "-p", "higher loop")
    assert code == 0, err
    rows = json.loads(out)
    assert [(r["what"], r["peer"]) for r in rows] == [
        (what, peer) for what in settings.MEASURED for peer in ("eager", "higher loop")
    ]
    for found in rows:
        assert (found["rule"], found["tasks"], found["steps"], found["n"]) == ("maml", 2, 1, 1_761)
        assert found["median"] > 0
        assert found["ratio"] > 0
        assert found["share_of_peak"] > 0


def test_the_command_times_images(metalearn):
    options = ("--learner", "conv-4", "--tasks", 1, "--steps", 1, "--size", 16, "--width", 2, "--seconds", 0)
    code, out, err = metalearn("speed", *options, "--json", "-p", "eager", "-p", "clone loop")
    assert code == 0, err
    rows = json.loads(out)
    assert [(r["what"], r["peer"], r["learner"]) for r in rows] == [
        ("meta-gradient", peer, "conv-4") for peer in ("eager", "clone loop")
    ]
    assert all(r["tasks_a_second"] == pytest.approx(1e3 / r["median"]) for r in rows)


def test_the_table_and_the_figure(metalearn, tmp_path):
    code, out, err = metalearn("speed", *ONE, "--what", "meta-gradient", "-p", "eager")
    assert code == 0, err
    assert "maml, 2 tasks, T = 1, second order, hidden 40, 1 thread, n = 1761" in out
    assert "times ours" in out
    options = ("--rule", "maml", "--tasks", 1, "--steps", 1, "--seconds", 0, "-p", "eager")
    code, out, err = metalearn("speed", *options, "--figure", tmp_path / "speed.pdf")
    assert code == 0, err
    assert (tmp_path / "speed.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("-p", "jaxx"), "unknown peer 'jaxx': did you mean 'jax'?"),
        (("--threads", "many"), "Invalid value for '--threads': 'many'"),
        (("--threads", 1_000_000), "threads must be at most"),
        (("--meta-batch", 0), "Invalid value for '--meta-batch'"),
        (("--size", 28), "--size is for --learner conv-4; mlp has no such axis"),
        (("--learner", "conv-4", "-p", "jax"), "peer 'jax' has no conv-4; those that have it: higher loop"),
        (("--learner", "conv-4", "--figure", "speed.png"), "--out is of mlp"),
        (("--width", 10, "--figure", "speed.png"), "--out is of mlp"),
        (("--figure", "speed.doc"), "must end in one of png, pdf, svg"),
        (("--figure", "speed.png", "--whole"), "leave --whole and --what out"),
        (("--figure", "speed.png", "--steps", 0), "T must be at least 1"),
        (("--figure", "speed.png", "--order", "first", "--order", "second"), "one of each"),
    ],
)
def test_bad_input_is_one_line(metalearn, arguments, complaint):
    code, out, err = metalearn("speed", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("metalearn: ")
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_leaves_what_was_timed(metalearn, monkeypatch, as_json):
    def interrupted(setting, *_):
        if setting.tasks == 2:
            raise KeyboardInterrupt
        return drawn(setting)

    monkeypatch.setattr(comparison, "measure", interrupted)
    code, out, err = metalearn("speed", "--rule", "maml", "--tasks", 1, "--tasks", 2, *["--json"] * as_json)
    assert code == 130
    assert err == "stopped; what had been timed is shown\n"
    if as_json:
        assert {r["tasks"] for r in json.loads(out)} == {1}
    else:
        assert "maml, 1 task, " in out


def test_ctrl_c_ends_the_command_within_an_outer_step(metalearn, monkeypatch, request):
    def pressed(clock, *losses):
        signal.raise_signal(signal.SIGINT)

    # whoever runs the tests in the background may have them ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(outer_steps.Clock, "__call__", pressed)
    code, out, err = metalearn("speed", *ONE, "--what", "outer step", "-p", "eager", "--json")
    assert (code, json.loads(out)) == (130, [])
    assert err == "stopped; what had been timed is shown\n"
