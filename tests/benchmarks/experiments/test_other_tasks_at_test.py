"""`[test]`: other shots, ways, queries and T at test than at training."""

from __future__ import annotations

import json

import pytest
import torch

from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.runs import recompute
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.runs.training import open_checkpoint, run_cells
from metalearn_core import TaskStream, UsageError, evaluate

MORE_POINTS = """
extends = "sine"
title = "Five points at training, seven at test"
methods = ["maml", "train-from-scratch"]
[method.train-from-scratch]
extends = "train-from-scratch"
settings = { steps = 3 }
[test]
shots = 7
query = 9
steps = 8
[scale.smoke]
test_tasks = 6
settings = { tasks = 6, validation_interval = 6, validation_tasks = 4 }
"""
MORE_CLASSES = """
extends = "glyphs"
title = "Two classes at training, three at test"
methods = ["maml", "finetuning"]
also_tested_on = ["glyphs-display"]
axes = { family = [], shots = [] }
where = []
[family]
options = { ways = 2, shots = 1, queries = 2 }
[learner]
options = { width = 4 }
[method.finetuning]
extends = "finetuning"
settings = { steps = 2 }
[test]
ways = 3
shots = 2
[scale.smoke]
test_tasks = 3
settings = { tasks = 4, steps = 1, meta_batch = 2, validation_interval = 4, validation_tasks = 2 }
"""


def cells_of(tmp_path, text, **overrides):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return cells(*find_experiment(str(path)), "smoke", Overrides(seeds=1, **overrides))


def test_test_tasks_have_their_own_points_and_t(tmp_path):
    maml, scratch = cells_of(tmp_path, MORE_POINTS)
    assert maml.setting == "sine-5-shot,test-shots=7,test-query=9"
    for cell in (maml, scratch):
        run_cells([cell], tmp_path / "out", [])
    of = {
        cell.name: json.loads((tmp_path / "out" / cell.folder / "result.json").read_text())
        for cell in (maml, scratch)
    }
    assert [len(row) for row in of["maml"]["scores"]["sine"]] == [9] * 6  # after 0 ... 8 steps
    assert {len(row) for row in of["train-from-scratch"]["scores"]["sine"]} == {4}  # its own T
    assert [len(part) for part in of["maml"]["curves"]["support"]] == [7, 7]
    # the same scores, from the checkpoint and the family alone
    components, trained = open_checkpoint(maml, tmp_path / "out" / maml.folder / "checkpoint.pt")
    rule, theta = trained.at_best()
    assert components.settings.steps == 5
    from metalearn_benchmarks.tasks.sine import SineFamily

    seven = SineFamily(support=7, query=9)
    scores = evaluate(
        rule, components.learner, theta, seven, components.settings, split="test", tasks=6
    )  # fmt: skip
    torch.testing.assert_close(scores, torch.tensor(of["maml"]["scores"]["sine"]), rtol=1e-6, atol=0)
    # and the training saw what it sees without the table
    before, _, after = MORE_POINTS.partition("[test]")
    without = before + "[scale" + after.partition("[scale")[2]
    (plain,) = cells_of(tmp_path, without, methods=["maml"])
    ours, theirs = (Components.build(cell).tasks("train").take(0, 3) for cell in (maml, plain))
    torch.testing.assert_close(ours.support.inputs, theirs.support.inputs, rtol=0, atol=0)


def test_more_ways_at_test_give_a_head_with_room_for_them(tmp_path):
    pytest.importorskip("fontpkg_lora", reason="the typefaces are not installed")
    maml, finetuning = cells_of(tmp_path, MORE_CLASSES)
    assert maml.setting == "glyphs-print-2-way-1-shot,test-ways=3,test-shots=2"
    for cell in (maml, finetuning):
        run_cells([cell], tmp_path / "out", [])
        result = json.loads((tmp_path / "out" / cell.folder / "result.json").read_text())
        for family in ("glyphs-print", "glyphs-display"):
            thirds = [6 * row[-1] for row in result["scores"][family]]  # 3 classes of 2 queries
            assert thirds == pytest.approx([round(score) for score in thirds])
    components = Components.build(maml)
    assert (components.family.ways, components.test_family.ways) == (2, 3)
    images = torch.zeros(1, 1, 28, 28)
    theta = components.learner.initial(torch.Generator().manual_seed(0))
    assert components.learner.predict(theta, images).shape == (1, 3)
    stream = TaskStream(components.test_family, "test", 0, torch.device("cpu"), torch.float32)
    assert stream.take(0, 1).support.targets.tolist() == [[0, 0, 1, 1, 2, 2]]


def test_a_record_says_it_and_is_computed_again_with_it(tmp_path):
    maml, _ = cells_of(tmp_path, MORE_POINTS)
    run_cells([maml], tmp_path / "out", [])
    cell, *_ = recompute.read_recorded_cell(str(tmp_path / "out" / maml.folder / "experiment.toml"))
    assert cell.test == {"support": 7, "query": 9}
    assert cell.test_family.options["support"] == 7


def test_a_record_without_the_table_is_as_it_was():
    cell = cells(*find_experiment("sine"), "smoke", Overrides(seeds=1))[0]
    assert "test" not in cell.as_toml()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("shot = 3", "unknown key 'test.shot': did you mean 'test.shots'"),
        ("shots = 0", "shots must be an integer >= 1, got 0"),
        ("steps = -1", "steps must be an integer >= 0"),
        ("ways = 3", "key 'test.ways': [family] options say no ways of family 'sine'"),
        ("shots = 2000000", "2,000,000"),
        ("steps = 20000000", "20,000,000"),
    ],
)
def test_what_makes_no_sense_is_refused_by_key(tmp_path, table, told):
    text = f'extends = "sine"\ntitle = "Mine"\n[test]\n{table}\n'
    with pytest.raises(UsageError) as caught:
        cells_of(tmp_path, text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
