"""Records as a run would have left them, made up: their numbers are drawn, not trained. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from metalearn_benchmarks.experiments.catalogue import methods
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.cell_file import write_cell
from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.statistics.summaries import summarise_run

SIZE = {
    "tasks": 70_000, "meta_batch": 1, "validation_tasks": 1_000, "validation_interval": 2_500,
    "task_seed": 0, "outer_lr": 0.001, "outer_loss": "mean", "outer_clip_scope": "all",
    "evaluation_batch": 100, "checkpoint_seconds": 30.0, "engine": "auto",
}  # fmt: skip


def cell(
    name: str, seed: int, *, experiment: str = "sine", setting: str = "sine-5-shot", family: str = "sine",
    method: str | None = None, options: dict[str, Any] | None = None, test_tasks: int = 20, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """What a run of a shipped method is asked for, under any name, setting and family."""
    shipped = methods()[method or name]
    wanted = {**SIZE, "steps": 5, "order": "second", **shipped.settings, **settings}
    support = {"sine": {"support": 5, "query": 50}}.get(family, {"ways": 5})
    return {
        "experiment": experiment, "setting": setting, "name": name, "seed": seed, "scale": "paper",
        "test_tasks": test_tasks, "device": "cpu", "threads": 1, "seeds_together": [seed],
        "family": {"name": family, "options": support},
        "learner": {"name": "mlp", "options": {"hidden": [40, 40]}},
        "method": {
            "title": shipped.title, "source": shipped.source, "start": shipped.start,
            "adapts": shipped.adapts,
            "rule": shipped.rule, "minibatch": 16, "options": {**shipped.options, **(options or {})},
            "settings": wanted,
        },
    }  # fmt: skip


def result(
    cell: dict[str, Any], *, level: float = 1.0, accuracy: bool = False, across: tuple[str, ...] = (),
    points: int = 29, **given: Any,
) -> dict[str, Any]:  # fmt: skip
    """What came out of it: scores near `level`, falling (rising) from step to step."""
    seed = sum(map(ord, f"{cell['experiment']}{cell['setting']}{cell['name']}")) * 1_000 + cell["seed"]
    generator = np.random.default_rng(seed)
    steps, tasks = cell["method"]["settings"]["steps"], cell["test_tasks"]
    way = np.linspace(0.6 if accuracy else 3.0, 1.0, steps + 1)
    spread = generator.uniform(0.8, 1.2, size=(tasks, 1)) * generator.uniform(0.95, 1.05)
    scores = [[float(f"{x:.9g}") for x in row] for row in level * spread * way]
    families = (cell["family"]["name"], *across)
    curve = level * np.geomspace(0.5 if accuracy else 3.0, 1.0, points)
    shown = list(range(min(steps, 8)))
    score = "accuracy" if accuracy else "mean squared error"
    return {
        "score": score, "higher_is_better": accuracy,
        "scores": dict.fromkeys(families, scores),
        "summary": summarise_run([row[-1] for row in scores], score),
        "validations": [[2_500 * i, float(x)] for i, x in enumerate(curve)], "best_position": 70_000,
        "diverged": None, "curves": _curves(generator, steps), "meta_parameters": 1_741, "parameters": 1_761,
        "rule_response": _response(shown), "batch_norm": "none: the base-learner has no batch norm",
        "seconds": float(generator.uniform(60, 600)), "peak_memory_bytes": int(generator.uniform(3e8, 6e8)),
        "versions": {"python": "3.11.0", "torch": "2.11.0", "metalearn-core": "0.1.0"}, "commit": "0" * 40,
        "device": "cpu: x86_64", "engine": "compiled", "threads": 1, "seeds_together": [cell["seed"]],
        "protocol": "paper", **given,
    }  # fmt: skip


def _curves(generator: np.random.Generator, steps: int) -> dict[str, Any]:
    x = np.linspace(-5, 5, 50)
    lines = {str(t): list(generator.uniform(0.5, 1) * np.sin(x)) for t in {0, 1, steps}}
    return {
        "support": [[-3.0, 0.0, 3.0], [0.0, 1.0, 0.0]],
        "query": [list(x), list(np.sin(x))],
        "predictions": lines,
    }


def _response(steps: list[int]) -> dict[str, Any]:
    gradients = [-10.0, -1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0, 10.0]
    return {
        "response": {
            "gradients": gradients, "loss": 4.0, "quantiles": [0.5], "steps": steps,
            "updates": [[[-0.01 * (t + 1) * g for g in gradients]] for t in steps],
        },
        "path": {
            "steps": steps, "gradient": [0.1 for _ in steps], "update": [0.001 for _ in steps],
            "alignment": [1.0 for _ in steps],
        },
    }  # fmt: skip


def write(directory: Path, cell: dict[str, Any], **given: Any) -> Path:
    """A finished run's folder below `directory`."""
    folder = directory / cell["experiment"] / cell["setting"] / cell["name"] / str(cell["seed"])
    write_cell(folder, cell)
    record.write_result(folder, result(cell, **given))
    return folder


def change_result(folder: Path, **changes: Any) -> None:
    """Write the result of a finished run again with other values, as that run would have written them."""
    found = json.loads((folder / "result.json").read_text())
    kept = {key: value for key, value in found.items() if key not in ("format", "seal", "crc32")}
    record.write_result(folder, {**kept, **changes})


def read(directory: Path, cells: list[dict[str, Any]], **given: Any) -> list[record.Record]:
    """Records of such runs, by way of the disk."""
    for one in cells:
        write(directory, one, **given)
    return read_records(directory)
