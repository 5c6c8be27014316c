"""What a finished run leaves in its record: scores, curves, what the rule does, where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.runs.components import used
from metalearn_benchmarks.runs.evaluation import Evaluation
from metalearn_benchmarks.runs.results.provenance import batch_norm, provenance
from metalearn_benchmarks.runs.results.rule_response import rule_response
from metalearn_benchmarks.statistics.summaries import summary
from metalearn_core import Task, Trained, trajectory

SHOWN = 20
"""Test tasks that the rule's steps are shown on, at most: no more than are evaluated together."""


def result_of(
    cell: Cell, trained: Trained, tested: Evaluation, scores: dict[str, torch.Tensor], together: Sequence[int]
) -> dict[str, Any]:
    """A run's `result.json`, all but the time it took.

    Args:
        scores: of each family, `[tasks, T + 1]`; the first is the one that was trained on.
        together: the seeds that trained as one program.
    """
    rule, learner, theta = tested.rule, tested.learner, tested.theta
    settings = tested.parts.settings
    first = tested.first_tasks(min(SHOWN, settings.evaluation_batch))
    steps, clip = settings.evaluation_steps, settings.inner_clip
    response = None if tested.classifier else rule_response(rule, learner, theta, first, steps, clip)
    score = learner.score_name.replace("_", " ")
    distributions = {entry.distribution for entry in used(cell).values()}
    return {
        "score": score,
        "higher_is_better": learner.higher_is_better,
        "scores": {name: [[_rounded(x) for x in row] for row in of.tolist()] for name, of in scores.items()},
        "summary": summary(next(iter(scores.values()))[:, -1].double().numpy(), score),
        "validations": [] if tested.classifier else trained.validations,
        "best_position": trained.best.position,
        "diverged": trained.diverged,
        "curves": _curves(tested, _telling(first)),
        "rule_response": response,
        "batch_norm": "none: no network" if tested.classifier else batch_norm(tested.parts.learner),
        "meta_parameters": sum(p.numel() for p in rule.parameters()),
        "parameters": 0 if tested.classifier else learner.layout.size,
        "data": tested.parts.data(cell),
        **provenance(cell, learner.device, trained.engine or "eager", distributions, together),
    }


def observer_values(result: dict[str, Any]) -> dict[str, float]:
    """Of a result, what observers are told."""
    summary = result["summary"]
    low, high = summary["ci95"]
    kept = {key: summary[key] for key in ("mean", "median", "tasks")}
    return {**kept, "ci95_low": low, "ci95_high": high, "seconds": result["seconds"]}


def _telling(tasks: Task) -> Task:
    """The one of the tasks whose query targets vary most: chosen by the data alone."""
    spread = tasks.query.targets.to(torch.get_default_dtype()).reshape(len(tasks), -1).std(1)
    return tasks[int(spread.argmax())]


@torch.no_grad()
def _curves(tested: Evaluation, task: Task) -> dict[str, Any] | None:
    """What the method predicts on one unseen task after 0, 1 and T steps, where inputs are scalars."""
    if task.query.inputs.shape[1:] != (1,) or task.query.targets.shape[1:] != (1,):
        return None
    settings = tested.parts.settings
    steps = settings.evaluation_steps
    order = task.query.inputs.flatten().argsort()
    inputs = task.query.inputs[order]
    path = trajectory(
        tested.rule, tested.learner, tested.theta, task.support, steps=steps, clip=settings.inner_clip
    )
    predictions = {
        str(t): tested.learner.predict(now, inputs).flatten().tolist()
        for t, (now, _) in enumerate(path)
        if t in (0, 1, steps)
    }
    return {
        "support": [
            task.support.inputs.flatten().tolist(),
            task.support.targets.flatten().tolist(),
        ],
        "query": [inputs.flatten().tolist(), task.query.targets[order].flatten().tolist()],
        "predictions": predictions,
    }


def _rounded(value: float) -> float:
    """A float32 in as few digits as tell it apart."""
    return float(f"{value:.9g}")
