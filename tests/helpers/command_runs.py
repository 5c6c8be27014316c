"""Runs of the command in a process of its own, a small experiment, and what of records must repeat."""

from __future__ import annotations

import json

PROGRAM = (
    "from metalearn_benchmarks.cli import main, run; run.write_and_print_report = lambda *_: None; main()"
)
"""The command, without the page at its end, which takes seconds to draw."""

SMALL_EXPERIMENT = """
title = "Mine"
setting = "sine-3-shot"
methods = ["maml", "two-layer"]
[family]
name = "sine"
options = { support = 3, query = 7 }
[learner]
name = "mlp"
options = { hidden = [8] }
[method.two-layer]
title = "A small TURTLE"
start = "meta"
rule = "feed-forward"
options = { hidden = [4, 4], learn_lr = "parameter" }
settings = { meta_batch = 2, outer_lr = 0.01 }
[scale.smoke]
seeds = 1
test_tasks = 30
settings = { tasks = 10, validation_interval = 5, validation_tasks = 10 }
"""
"""An experiment of one's own with a method of its own, which takes a second."""


def scores(directory):
    """Everything that came out, without what depends on when and how fast it ran."""
    found = {}
    for path in sorted(directory.rglob("result.json")):
        result = json.loads(path.read_text())
        kept = ("scores", "summary", "validations", "best_position", "curves")
        found[str(path.relative_to(directory))] = {key: result[key] for key in kept}
        lines = path.with_name("metrics.jsonl").read_text().splitlines()
        positions = [json.loads(line)["position"] for line in lines]
        assert positions == [position for position, _ in result["validations"]]
    return found
