"""Exporting a run: its best state and a description of it become an artifact."""

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
from metalearn_benchmarks.artifacts.zoo import require_entry_name
from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.learners.head import Head
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.cell_file import read_cell
from metalearn_benchmarks.records.files import CHECKPOINT, EXPERIMENT
from metalearn_benchmarks.records.seal import require_own_checkpoint
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.runs.evaluation import best_state
from metalearn_benchmarks.runs.resolution import learner_options, registered_entries
from metalearn_benchmarks.runs.results.provenance import provenance
from metalearn_benchmarks.runs.training import open_checkpoint
from metalearn_core import ParameterLayout, Registered, Trained, UpdateRule, UsageError

CHANGED = "-dirty"
"""What the commit of a run ends in whose code was changed."""
FOLDER = "artifact"
"""The folder of the artifact in that of the run, unless another is given."""


def export_run(run: Path, out: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Write the best state of a run as an artifact. The run must have finished, or been validated.

    Args:
        run: The folder of a record, `DIR/<experiment>/<setting>/<method>/<seed>`.
        out: The folder to write. None: `artifact` in the run's folder.

    Returns:
        The artifact's folder and its card.

    Raises:
        UsageError: There is no such run, it was never validated, or `out` holds another run's artifact.
    """
    cell, result = _read_cell(run), None
    if cell.method.start == "pixels":
        raise UsageError(f"{run}: {cell.method.title} has neither a rule nor an initialisation to export")
    checkpoint = run / CHECKPOINT
    if not checkpoint.is_file():  # nor does it wait for what writes into a pipe
        raise UsageError(f"{run}: its {CHECKPOINT} is missing, which holds the trained state")
    if record.is_finished(run):
        result = record.read_record(run, placed=False).result
    components, trained = open_checkpoint(cell, checkpoint)
    if result is not None:
        require_own_checkpoint(run, result)
    elif not trained.validations:
        raise UsageError(f"{run}: the run has not been validated yet; the command that began it goes on")
    folder = out or run / FOLDER
    identity = {
        "experiment": cell.experiment, "setting": cell.setting, "method": cell.name, "seed": cell.seed,
    }  # fmt: skip
    if (folder / CARD).exists() and read_card(folder).get("run") != identity:
        raise UsageError(f"{folder}: it holds the artifact of another run; use another --out")
    rule, start = best_state(cell, components, trained)
    theta = components.test_learner.layout.unflatten(start)
    adapted = (
        Head(components.test_learner).freeze_body(start)[0]
        if cell.method.adapts == "head"
        else components.test_learner
    )
    tensors = {
        **{f"{THETA}{name}": tensor for name, tensor in theta.items()},
        **{f"{PHI}{name}": tensor for name, tensor in rule.state_dict().items()},
    }
    about = {
        "run": identity,
        **_describe_model(cell, components, rule),
        "adapted": _layout_table(adapted.layout),
        **_describe_training(cell, components, trained),
        **_describe_result(cell, components, trained, result),
    }
    return folder, write_artifact(folder, about, tensors)


def export_to_zoo(run: Path, name: str, home: Path) -> tuple[Path, dict[str, Any]]:
    """Write the best state of a finished run as an entry of a zoo.

    An entry can be held to its card: the run must have its test scores, and the code that made them must be a
    commit, with nothing changed since.

    Args:
        run: The folder of a record.
        name: The name of the entry.
        home: The folder of the zoo.

    Returns:
        The entry's folder and its card.

    Raises:
        UsageError: The run is not finished or its code was changed, the name is taken, or as `export_run`.
    """
    require_entry_name(name)
    if not record.is_finished(run):
        raise UsageError(
            f"{run}: it has no test scores yet, and an entry of the zoo is held to them; finish it"
        )
    commit = record.read_record(run, placed=False).result.get("commit")
    if commit is not None and commit.endswith(CHANGED):
        raise UsageError(
            f"{run}: its commit is {commit}: the code was changed and nobody has it; run it again from"
            " a commit"
        )
    return export_run(run, home / name)


def _read_cell(run: Path) -> Cell:
    """Return the cell of a run, from its `experiment.toml`, on the CPU."""
    plain = read_cell(run)
    if plain is None:
        raise UsageError(
            f"{run}: no run is in it; give a record's folder, DIR/<experiment>/<setting>/<method>/<seed>"
        )
    try:
        cell = cattrs.Converter().structure(plain, Cell)
    except (ClassValidationError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{run / EXPERIMENT}: not what a run is asked for ({error})") from error
    return attrs.evolve(cell, device="cpu")


def _layout_table(layout: ParameterLayout) -> dict[str, Any]:
    return {"names": [*layout.names], "shapes": [[*shape] for shape in layout.shapes], "size": layout.size}


def _distribution_of(entry: Registered) -> dict[str, str]:
    return {"distribution": entry.distribution, "version": installed_version(entry.distribution)}


def _describe_model(cell: Cell, components: Components, rule: UpdateRule) -> dict[str, Any]:
    """Return what the card says of the rule, the learner and the layout of θ⁰."""
    entries = registered_entries(cell)
    return {
        "rule": {
            "name": cell.method.rule,
            "options": cell.method.options,
            "class": rule.label,
            "api_version": rule.api_version,
            **_distribution_of(entries["rule"]),
        },
        "learner": {
            "name": cell.learner.name,
            "options": learner_options(cell, components.family),
            "description": components.test_learner.describe(),
            **_distribution_of(entries["learner"]),
        },
        "layout": _layout_table(components.test_learner.layout),
        "dtype": str(components.test_learner.dtype).removeprefix("torch."),
        "adapts": cell.method.adapts,
    }


def _describe_training(cell: Cell, components: Components, trained: Trained) -> dict[str, Any]:
    """Return what the card says of the training and of the adaptation."""
    settings, clip = components.settings, components.settings.inner_clip
    return {
        "adaptation": {
            "steps": settings.evaluation_steps,
            "order": settings.order,
            "clip": None if clip is None else attrs.asdict(clip),
        },
        "training": {
            "title": cell.method.title,
            "start": cell.method.start,
            "family": {
                **cattrs.unstructure(cell.family),
                **_distribution_of(registered_entries(cell)["family"]),
            },
            "settings": {k: v for k, v in attrs.asdict(settings).items() if v is not None},
            "position": trained.best.position,
            "diverged": trained.diverged,
        },
    }


def _describe_result(
    cell: Cell, components: Components, trained: Trained, result: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what the card says of scores, as far as there are any, and of their origin."""
    source = result or provenance(cell, components.test_learner.device, trained.engine, (), [cell.seed])
    score = trained.best.score
    return {
        "finished": result is not None,
        "scores": {
            "score": components.test_learner.score_name.replace("_", " "),
            "higher_is_better": components.test_learner.higher_is_better,
            "validation": score if math.isfinite(score) else None,
            "test": result and result["summary"],
        },
        "versions": source["versions"],
        "commit": source["commit"],
    }
