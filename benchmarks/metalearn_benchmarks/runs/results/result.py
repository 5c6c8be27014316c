"""The result of a run: scores, curves, the response of the rule, and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.runs.evaluation import Evaluation
from metalearn_benchmarks.runs.resolution import registered_entries
from metalearn_benchmarks.runs.results.provenance import describe_batch_norm, provenance
from metalearn_benchmarks.runs.results.rule_response import rule_response
from metalearn_benchmarks.statistics.summaries import summarise_run
from metalearn_core import Task, Trained, trajectory

MAX_SHOWN_TASKS = 20
"""Test tasks on which the rule's steps are shown, at most; never more than are evaluated together."""


def make_result(
    cell: Cell,
    trained: Trained,
    evaluation: Evaluation,
    scores: dict[str, torch.Tensor],
    seeds_together: Sequence[int],
) -> dict[str, Any]:
    """Return the contents of a run's `result.json`, without the time it took.

    Args:
        cell: The cell.
        trained: Its training.
        evaluation: What was tested.
        scores: By family, the score of each test task after each step: `[tasks, T + 1]`. The first family is
            the one that was trained on.
        seeds_together: The seeds that trained as one program.
    """
    rule, learner, theta = evaluation.rule, evaluation.learner, evaluation.theta
    settings = evaluation.components.settings
    first = evaluation.first_tasks(min(MAX_SHOWN_TASKS, settings.evaluation_batch))
    steps, clip = settings.evaluation_steps, settings.inner_clip
    response = None if evaluation.classifier else rule_response(rule, learner, theta, first, steps, clip)
    score = learner.score_name.replace("_", " ")
    distributions = {entry.distribution for entry in registered_entries(cell).values()}
    return {
        "experiment": cell.experiment,
        "setting": cell.setting,
        "method": cell.name,
        "seed": cell.seed,
        "score": score,
        "higher_is_better": learner.higher_is_better,
        "scores": {name: [[_rounded(x) for x in row] for row in of.tolist()] for name, of in scores.items()},
        "summary": summarise_run(next(iter(scores.values()))[:, -1].double().numpy(), score),
        "validations": [] if evaluation.classifier else trained.validations,
        "best_position": trained.best.position,
        "diverged": trained.diverged,
        "curves": _curves(evaluation, _most_varied_task(first)),
        "rule_response": response,
        "batch_norm": "none: no network"
        if evaluation.classifier
        else describe_batch_norm(evaluation.components.learner),
        "meta_parameters": sum(p.numel() for p in rule.parameters()),
        "parameters": 0 if evaluation.classifier else learner.layout.size,
        "data": evaluation.components.checksums(cell),
        **provenance(cell, learner.device, trained.engine or "eager", distributions, seeds_together),
    }


def observer_values(result: dict[str, Any]) -> dict[str, float]:
    """Return the values of the event `result`, from a `result.json`."""
    summary, own_family = result["summary"], next(iter(result["scores"].values()))
    low, high = summary["ci95"]
    by_step = {f"score_after_{t}": fmean(scores) for t, scores in enumerate(zip(*own_family, strict=True))}
    own = {key: summary[key] for key in ("mean", "median", "tasks")}
    return {**own, "ci95_low": low, "ci95_high": high, "seconds": result["seconds"], **by_step}


def _most_varied_task(tasks: Task) -> Task:
    """Return the task whose query targets vary most, a choice by the data alone."""
    spread = tasks.query.targets.to(torch.get_default_dtype()).reshape(len(tasks), -1).std(1)
    return tasks[int(spread.argmax())]


@torch.no_grad()
def _curves(evaluation: Evaluation, task: Task) -> dict[str, Any] | None:
    """Return the predictions on one test task after 0, 1 and T steps, or None where inputs are no scalars."""
    if task.query.inputs.shape[1:] != (1,) or task.query.targets.shape[1:] != (1,):
        return None
    settings = evaluation.components.settings
    steps = settings.evaluation_steps
    order = task.query.inputs.flatten().argsort()
    inputs = task.query.inputs[order]
    path = trajectory(
        evaluation.rule,
        evaluation.learner,
        evaluation.theta,
        task.support,
        steps=steps,
        clip=settings.inner_clip,
    )
    predictions = {
        str(t): evaluation.learner.predict(now, inputs).flatten().tolist()
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
    """Round a float32 to as few digits as identify it."""
    return float(f"{value:.9g}")
