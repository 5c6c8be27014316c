"""From a run to an artifact: the best state it has reached, and what it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
import cattrs
from cattrs.errors import ClassValidationError

from metalearn_benchmarks.artifacts.files import (
    CARD,
    PHI,
    THETA,
    installed_version,
    read_card,
    write_artifact,
)
from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.learners.head import Head
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.files import CHECKPOINT, EXPERIMENT
from metalearn_benchmarks.runs.components import Components, learner_options, used
from metalearn_benchmarks.runs.evaluation import best_state
from metalearn_benchmarks.runs.results.provenance import provenance
from metalearn_benchmarks.runs.training import open_checkpoint
from metalearn_core import ParameterLayout, Registered, Trained, UpdateRule, UsageError

FOLDER = "artifact"


def export_run(run: Path, out: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Write the best state of a run, which must be finished or validated, as an artifact.

    Args:
        run: a record's folder, `DIR/<experiment>/<setting>/<method>/<seed>`.
        out: where to; None: `artifact` in the run's folder.

    Returns:
        The artifact's folder and its card.

    Raises:
        UsageError: where there is no such run, nothing that was validated, or another run's artifact.
    """
    cell, result = _asked_for(run), None
    if cell.method.start == "pixels":
        raise UsageError(f"{run}: {cell.method.title} has neither a rule nor an initialisation to export")
    checkpoint = run / CHECKPOINT
    if not checkpoint.exists():
        raise UsageError(f"{run}: its {CHECKPOINT} is missing, which holds the trained state")
    parts, trained = open_checkpoint(cell, checkpoint)
    if record.is_finished(run):
        result = record.read_record(run).result
    elif not trained.validations:
        raise UsageError(f"{run}: the run has not been validated yet; the command that began it goes on")
    folder = out or run / FOLDER
    identity = {
        "experiment": cell.experiment, "setting": cell.setting, "method": cell.name, "seed": cell.seed,
    }  # fmt: skip
    if (folder / CARD).exists() and read_card(folder).get("run") != identity:
        raise UsageError(f"{folder}: it holds the artifact of another run; use another --out")
    rule, start = best_state(cell, parts, trained)
    theta = parts.tested.layout.unflatten(start)
    adapted = Head(parts.tested).alone(start)[0] if cell.method.adapts == "head" else parts.tested
    tensors = {
        **{f"{THETA}{name}": tensor for name, tensor in theta.items()},
        **{f"{PHI}{name}": tensor for name, tensor in rule.state_dict().items()},
    }
    about = {
        "run": identity,
        **_what(cell, parts, rule),
        "adapted": _plain(adapted.layout),
        **_how(cell, parts, trained),
        **_outcome(cell, parts, trained, result),
    }
    return folder, write_artifact(folder, about, tensors)


def _asked_for(run: Path) -> Cell:
    """The run's cell, as its `experiment.toml` says it, on the CPU."""
    plain = record.read_cell(run)
    if plain is None:
        raise UsageError(
            f"{run}: no run is in it; give a record's folder, DIR/<experiment>/<setting>/<method>/<seed>"
        )
    try:
        cell = cattrs.Converter().structure(plain, Cell)
    except (ClassValidationError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{run / EXPERIMENT}: not what a run is asked for ({error})") from error
    return attrs.evolve(cell, device="cpu")


def _plain(layout: ParameterLayout) -> dict[str, Any]:
    return {"names": [*layout.names], "shapes": [[*shape] for shape in layout.shapes], "size": layout.size}


def _source(entry: Registered) -> dict[str, str]:
    return {"distribution": entry.distribution, "version": installed_version(entry.distribution)}


def _what(cell: Cell, parts: Components, rule: UpdateRule) -> dict[str, Any]:
    """Rule, learner and the layout of θ⁰."""
    entries = used(cell)
    return {
        "rule": {
            "name": cell.method.rule,
            "options": cell.method.options,
            "class": rule.label,
            "api_version": rule.api_version,
            **_source(entries["rule"]),
        },
        "learner": {
            "name": cell.learner.name,
            "options": learner_options(cell, parts.family),
            "description": parts.tested.describe(),
            **_source(entries["learner"]),
        },
        "layout": _plain(parts.tested.layout),
        "dtype": str(parts.tested.dtype).removeprefix("torch."),
        "adapts": cell.method.adapts,
    }


def _how(cell: Cell, parts: Components, trained: Trained) -> dict[str, Any]:
    """How it was trained, and how it adapts."""
    settings, clip = parts.settings, parts.settings.inner_clip
    return {
        "adaptation": {
            "steps": settings.evaluation_steps,
            "order": settings.order,
            "clip": None if clip is None else attrs.asdict(clip),
        },
        "training": {
            "title": cell.method.title,
            "start": cell.method.start,
            "family": {**cattrs.unstructure(cell.family), **_source(used(cell)["family"])},
            "settings": {k: v for k, v in attrs.asdict(settings).items() if v is not None},
            "position": trained.best.position,
            "diverged": trained.diverged,
        },
    }


def _outcome(
    cell: Cell, parts: Components, trained: Trained, result: dict[str, Any] | None
) -> dict[str, Any]:
    """Scores, as far as there are any, and where they came from."""
    source = result or provenance(cell, parts.tested.device, trained.engine, (), [cell.seed])
    score = trained.best.score
    return {
        "finished": result is not None,
        "scores": {
            "score": parts.tested.score_name.replace("_", " "),
            "higher_is_better": parts.tested.higher_is_better,
            "validation": score if math.isfinite(score) else None,
            "test": result and result["summary"],
        },
        "versions": source["versions"],
        "commit": source["commit"],
    }
