"""The times of Figure 3.4: their arithmetic, the claims' own rules on them, and what the page says."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import pytest
import torch

from metalearn_benchmarks.claims.verdicts import Outcome
from metalearn_benchmarks.speed.paper_times import timing
from metalearn_benchmarks.speed.paper_times.timing import METHODS, TimedMethod, timed_cells

ROOT = Path(__file__).parents[3]
FIRST_ORDER = ("fo-maml", "lstm", "fo-turtle")


@pytest.fixture(scope="module")
def paper_times():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import paper_times
    finally:
        sys.path.pop(0)
    return paper_times


def made_up(seconds, jitter=0.01):
    """Five turns in which a task of a method takes so many seconds, whatever it is for."""
    timings = [
        {"method": method, "shots": shots, "turn": turn, "training": took, "test": took}
        for turn in range(5)
        for shots in (1, 5)
        for method in METHODS
        for took in [seconds[method] * (1 + jitter * ((turn + len(method)) % 3))]
    ]
    return {"device": "cpu", "engine": "eager", "threads": 1, "timings": timings}


def verdicts(paper_times, monkeypatch, seconds):
    monkeypatch.setattr(paper_times, "timings", lambda: made_up(seconds))
    return [verdict.outcome for verdict in paper_times.time_verdicts()]


def test_the_claims_rules_decide_on_known_seconds(paper_times, monkeypatch):
    as_the_paper = {name: 1.0 if name in FIRST_ORDER else 2.0 for name in METHODS} | {"lstm-enhanced": 3.0}
    assert verdicts(paper_times, monkeypatch, as_the_paper) == [Outcome.HOLDS, Outcome.HOLDS]
    slow_turtle = {**as_the_paper, "turtle": 4.0}
    assert verdicts(paper_times, monkeypatch, slow_turtle) == [Outcome.FAILS, Outcome.HOLDS]
    slow_lstm = {**as_the_paper, "lstm": 2.5}
    assert verdicts(paper_times, monkeypatch, slow_lstm) == [Outcome.HOLDS, Outcome.FAILS]


def test_a_run_is_as_many_tasks_as_the_experiment_has(paper_times):
    one = {"method": "turtle", "shots": 1, "training": 1.0, "test": 1.0}
    assert paper_times.seconds_of_a_run(one) == (60_000, 25 * 600, 2 * 600)
    assert paper_times.seconds_of_a_run({**one, "shots": 5}) == (40_000, 17 * 600, 2 * 600)


def test_a_test_task_is_t_updates_and_t_plus_1_scorings(monkeypatch):
    """The clock is a fake: a scoring takes 2 seconds, and an update 3."""
    now = [0.0]

    def fake(rule, learner, theta, family, settings, *, split, tasks):
        now[0] += 2 * (settings.test_steps + 1) + 3 * settings.test_steps

    monkeypatch.setattr(timing, "evaluate", fake)
    cell = next(cell for cell in timed_cells() if cell.name == "maml")
    method = TimedMethod.of(cell)
    timed = TimedMethod(method.cell, method.family, method.components, method.theta, lambda: now[0])
    assert timed.test_seconds() == 10 * 3 + 11 * 2


def test_a_training_task_is_one_meta_gradient_of_the_cell(monkeypatch):
    asked = []
    monkeypatch.setattr(timing, "meta_gradient", lambda *_, **given: asked.append(given))
    cell = next(cell for cell in timed_cells() if cell.name == "lstm-enhanced")
    method = TimedMethod.of(cell)
    ticks = count(10, 7)
    timed = TimedMethod(cell, method.family, method.components, method.theta, lambda: next(ticks))
    assert timed.training_seconds() == 7
    assert [(one["steps"], one["order"]) for one in asked] == [(8, "second")]


def test_the_noise_has_the_shapes_of_the_papers_tasks():
    five = next(cell for cell in timed_cells() if cell.family.options["shots"] == 5)
    method = TimedMethod.of(five)
    task = method.family.sample("test", 2, torch.Generator().manual_seed(0))
    assert task.support.inputs.shape == (2, 25, 3, 84, 84)
    assert task.query.inputs.shape == (2, 80, 3, 84, 84)
    assert task.support.targets.shape == (2, 25)
    assert method.components.learner.layout.size == 115_973


def test_the_committed_times_are_five_turns_of_every_method(paper_times):
    found = [(one["turn"], one["shots"], one["method"]) for one in paper_times.timings()["timings"]]
    assert sorted(found) == sorted((t, s, m) for t in range(5) for s in (1, 5) for m in METHODS)
    assert (paper_times.timings()["threads"], paper_times.timings()["engine"]) == (1, "eager")
    assert all(min(one["training"], one["test"]) > 0 for one in paper_times.timings()["timings"])


def test_the_page_says_what_the_committed_times_decide(paper_times):
    page = " ".join((ROOT / "docs" / "paper-against-us.md").read_text(encoding="utf-8").split())
    turtle, first = paper_times.time_verdicts()
    assert (turtle.outcome, first.outcome) == (Outcome.HOLDS, Outcome.FAILS)
    assert "of two on time, timed on noise, one holds. Eight others need images" in page
    failing = {part.label for part in first.parts if part.outcome == Outcome.FAILS}
    slower = {f"seconds of Meta-learner LSTM / {other} on 1-shot noise" for other in ("MAML", "TURTLE")}
    assert failing == slower
    others = [one for one in first.parts if "5-shot" in one.label or "of First-order" in one.label]
    assert len(others) == 15
    assert all(part.outcome == Outcome.HOLDS for part in others)
    of_one_shot = {
        cell.name: cell.method.settings["steps"]
        for cell in timed_cells()
        if cell.family.options["shots"] == 1
    }
    assert [of_one_shot[name] for name in ("lstm", "maml", "turtle", "lstm-enhanced")] == [12, 5, 5, 8]
    assert "makes 12 updates" in page
    totals = {}
    for one in paper_times.timings()["timings"]:
        run = sum(paper_times.seconds_of_a_run(one))
        totals.setdefault((one["method"], one["shots"]), []).append(run)
    ratios = [max(runs) / min(runs) for runs in totals.values()]
    assert f"takes up to {max(ratios):.1f} times as long as in its fastest" in page
