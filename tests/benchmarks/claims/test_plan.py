"""The plan of the next runs: its grids are experiments, its hours are theirs, and its page shows it."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import synthetic_records as synthetic

from metalearn_benchmarks.claims.rules import claim_rules
from metalearn_benchmarks.experiments.catalogue import Overrides, cells, experiments, find_experiment
from metalearn_benchmarks.records.reading import read_records

ROOT = Path(__file__).parents[3]
GRIDS = ROOT / "benchmarks/results/plan"
sys.path.insert(0, str(ROOT / "docs"))
try:
    from from_the_plan import plan_text, read_plan
    from plan_results import RECORDS, questions_text, rows_of
finally:
    sys.path.pop(0)

SECONDS = {"maml": 31, "meta-sgd": 60, "turtle": 60, "lstm": 500}
"""About what a run takes on one core, as the published records have it (70,000 tasks, T = 5)."""


def grid(name):
    file = GRIDS / f"{name}.toml"
    found = find_experiment(str(file) if file.exists() else name)
    return cells(*found, "paper", Overrides())


def test_every_grid_is_an_experiment_and_every_file_is_in_the_plan():
    planned = {name for question in read_plan()["question"] for name in question["grids"]}
    files = {path.stem for path in GRIDS.glob("*.toml")}
    assert files <= planned
    assert planned - files <= {*experiments(), "omniglot"}


@pytest.mark.parametrize("name", ["clipping", "state", "stuck", "truncation"])
def test_a_grid_has_ten_seeds_or_more_on_several_streams(name):
    found = grid(name)
    assert len({cell.seed for cell in found}) >= 10
    assert len({cell.method.settings["task_seed"] for cell in found}) >= 2
    assert {cell.method.settings["tasks"] for cell in found} == {70_000}


def test_the_hours_are_about_those_of_the_runs():
    plan = {question["name"]: question for question in read_plan()["question"]}
    for name in ("clipping", "state", "stuck", "cheaper"):
        own = [one for one in plan[name]["grids"] if name != "stuck" or one == "stuck"]
        seconds = sum(
            next(time for method, time in SECONDS.items() if cell.name.startswith(method))
            for one in own for cell in grid(one)
        )  # fmt: skip
        assert 0.6 < plan[name]["hours"] / (seconds / 3600) < 1.7, (name, seconds / 3600)


def test_one_clamp_and_one_start_for_the_question_of_state():
    found = grid("state")
    clips = {str((cell.method.settings["inner_clip"], cell.method.settings["outer_clip"])) for cell in found}
    assert len(clips) == 1


def test_the_page_has_every_case_and_its_claims_are_there():
    text = plan_text()
    known = {*claim_rules().claim}
    for question in read_plan()["question"]:
        assert question["says"]
        for case in question["says"]:
            assert f"| {case['when']} | {case['then']} |" in text
            assert {*case["then"].split("`")[1::2]} <= known, case["then"]
    for claim in ("sine-ranking", "sine-premise"):
        assert claim in known
        assert f"`{claim}`" in text


def runs_of(tmp_path, levels):
    """Runs of the grid `clipping`, ten seeds on three streams; the errors of a row by its method."""
    for name, level in levels.items():
        for stream, seed in itertools.product((0, 1, 2), range(10)):
            setting = f"sine-5-shot,task_seed={stream}"
            cell = synthetic.cell(
                name, seed, experiment="clipping", method=name.partition("-")[0], setting=setting,
                task_seed=stream,
            )  # fmt: skip
            synthetic.write(tmp_path, cell, level=level(stream))
    return read_records(tmp_path)


def test_a_comparison_is_told_once_its_runs_are_whole(tmp_path):
    rows = {
        "maml": lambda _: 1.0,
        "turtle": lambda _: 0.5,
        "maml-free": lambda _: 1.01,
        "maml-inner-free": lambda stream: 0.5 if stream else 1.1,
    }
    records = runs_of(tmp_path, rows)
    found = rows_of(records)
    lines = {line.split(" | ")[0].strip("| "): line for line in questions_text(found).splitlines()}
    assert lines["TURTLE over MAML, both clamped, T = 5"].endswith("| 0 and 0 | the first is ahead |")
    assert "| 0.50 [" in lines["TURTLE over MAML, both clamped, T = 5"]
    assert lines["MAML over clamped MAML, both free, T = 5"].endswith("| not told |")
    # lower on two streams of three, and not on all
    assert lines["MAML over clamped MAML, support gradients free, T = 5"].endswith("| not told |")
    assert "TURTLE over MAML, both free, T = 5" not in lines
    assert "16 of 20 comparisons wait for their runs." in questions_text(found)


def test_a_row_that_lacks_a_seed_is_not_compared(tmp_path):
    records = runs_of(tmp_path, {"maml": lambda _: 1.0, "turtle": lambda _: 0.5})
    assert len(rows_of(records)) == 2
    assert len(rows_of(records[:-1])) == 1


def test_the_committed_runs_are_those_of_the_grid_from_one_commit():
    """Each has a clean commit, and is a run that its grid asks for."""
    records = read_records(RECORDS)
    asked = {(cell.setting, cell.name, cell.seed) for cell in grid("clipping")}
    assert {record.experiment for record in records} == {"clipping"}
    assert {(record.setting, record.method, record.seed) for record in records} <= asked
    (commit,) = {record.result["commit"] for record in records}
    assert len(commit) == 40
    assert {record.result["protocol"] for record in records} == {"paper"}
    stopped = Counter(record.method for record in records if record.result["diverged"])
    assert stopped == {"turtle-free": 7}
    assert "seven of its thirty runs were stopped" in (ROOT / "docs/plan.md").read_text("utf-8")
    without, clamped = (
        [np.median(r.final) for r in records if r.method == method and not r.result["diverged"]]
        for method in ("turtle-free", "turtle")
    )
    assert np.median(without) > np.median(clamped)


def test_what_the_page_says_of_the_clamp_is_what_a_plain_count_says():
    """By another way: on each stream, the middle half of the runs' medians without the clamp and with it."""
    records = read_records(RECORDS)

    def typical(method, stream):
        medians = sorted(
            float(np.median(record.final))
            for record in records
            if record.method == method and record.cell["method"]["settings"]["task_seed"] == stream
        )
        assert len(medians) == 10
        return sum(medians[2:8]) / 6

    lines = questions_text(rows_of(records)).splitlines()
    for what, one, other, said in (
        ("MAML over clamped MAML, support gradients free", "maml-inner-free", "maml", "the first is ahead"),
        ("TURTLE over MAML, both clamped", "turtle", "maml", "the first is ahead"),
        ("TURTLE over MAML, both free", "turtle-free", "maml-free", "the second is ahead"),
        ("TURTLE over MAML, MAML alone free", "turtle", "maml-free", "the first is ahead"),
        ("TURTLE over clamped TURTLE, both free", "turtle-free", "turtle", "the second is ahead"),
    ):
        ratios = [typical(one, stream) / typical(other, stream) for stream in (0, 1, 2)]
        (line,) = (line for line in lines if f"{what}, T = 5" in line)
        assert " | " + ", ".join(f"{ratio:.2f}" for ratio in ratios) + " | " in line
        assert line.endswith(f"| {said} |")
