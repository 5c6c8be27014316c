"""The table of "Another outer gradient": errors from records, time and memory as they were measured here.

`python docs/outer_gradients.py` measures, and writes `benchmarks/outer-gradients/costs.json`.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from from_the_records import TYPICAL, _by, _table, _typical

from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.speed.live_bytes import LiveBytes
from metalearn_core import base_learners, make_meta_gradient, make_rule, seeded_generator, task_families

FOLDER = Path(__file__).parents[1] / "benchmarks" / "outer-gradients"
COSTS = FOLDER / "costs.json"
WAYS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "maml": ("gradient-descent", {}, "backpropagation", {}),
    "fo-maml": ("gradient-descent", {}, "backpropagation", {"order": "first"}),
    "hf-maml": ("gradient-descent", {}, "hessian-free", {}),
    "mixed-maml": ("gradient-descent", {}, "mixed-mode", {}),
    "es-maml": ("gradient-descent", {}, "evolution", {}),
    "imaml": ("proximal", {"regularisation": 2.0}, "implicit", {}),
    "reptile": ("gradient-descent", {}, "reptile", {}),
    "turtle": ("feed-forward", {}, "backpropagation", {}),
    "fo-turtle": ("feed-forward", {}, "backpropagation", {"order": "first"}),
    "hf-turtle": ("feed-forward", {}, "hessian-free", {}),
    "mixed-turtle": ("feed-forward", {}, "mixed-mode", {}),
    "es-turtle": ("feed-forward", {}, "evolution", {}),
}
"""Each method of the experiment: rule, its options, outer gradient, what it is asked with."""
LENGTHS, ROUNDS = (5, 50), 5


def asked(method: str, steps: int) -> Callable[[], object]:
    """One outer gradient of a method, on one task of 5 and 50 points, as the experiment takes it."""
    rule_name, options, outer, settings = WAYS[method]
    learner = base_learners()["mlp"](hidden=[40, 40], inputs=1, outputs=1)
    torch.manual_seed(0)
    rule = make_rule(rule_name, learner.layout, **options)
    task = task_families()["sine"](support=5, query=50).sample("train", 1, seeded_generator("cost"))
    theta = learner.initial(seeded_generator("weights", 0))
    gradient = make_meta_gradient(outer)
    return lambda: gradient(rule, learner, theta, task, steps=steps, **settings)


def measured() -> list[dict[str, Any]]:
    """Median milliseconds, all methods in turns, and the most bytes alive; eager, one thread."""
    torch.set_num_threads(1)
    found = []
    for steps in LENGTHS:
        calls = {method: asked(method, steps) for method in WAYS}
        times: dict[str, list[float]] = {method: [] for method in WAYS}
        for _ in range(ROUNDS):
            for method, call in calls.items():
                begun = time.perf_counter()
                call()
                times[method].append(1000 * (time.perf_counter() - begun))
        for method in WAYS:
            with LiveBytes() as live:
                asked(method, steps)()
            milliseconds = statistics.median(times[method])
            told = {"method": method, "steps": steps, "milliseconds": milliseconds, "bytes": live.most}
            found.append(told)
    return found


def outer_gradients() -> str:
    """Error, cost and memory of each method of the experiment `outer-gradients`."""
    costs = {(row["method"], row["steps"]): row for row in json.loads(COSTS.read_text("utf-8"))}
    groups = _by(lambda record: record.method, read_records(FOLDER))
    rows = []
    for method, (rule, _, outer, settings) in WAYS.items():  # those that were not trained have costs alone
        runs = groups.get(method)
        base = "turtle" if rule == "feed-forward" else "maml"
        of_cost = []
        for steps in LENGTHS:
            own, beside = costs[method, steps], costs[base, steps]
            of_cost.append(f"{own['milliseconds'] / beside['milliseconds']:.1f}")
            of_cost.append(f"{own['bytes'] / 2**20:.1f}")
        order = ", first order" if settings else ""
        names = (f"`{method}`", f"{outer}{order}")
        cells = _typical(runs, names)[1] if runs else (*names, "0", "–", "–")
        rows.append((*cells[:5], *of_cost))
    head = ("method", "outer gradient", *TYPICAL[:3])
    return _table((*head, *(cell for t in LENGTHS for cell in (f"time, T = {t}", f"MiB, T = {t}"))), rows)


if __name__ == "__main__":
    COSTS.parent.mkdir(exist_ok=True)
    COSTS.write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
