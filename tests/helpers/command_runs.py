"""Runs of the command in a process of its own, and what of their records must repeat."""

from __future__ import annotations

import json

PROGRAM = (
    "from metalearn_benchmarks.cli import main, run; run.write_and_print_report = lambda *_: None; main()"
)
"""The command, without the page at its end, which takes seconds to draw."""


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
