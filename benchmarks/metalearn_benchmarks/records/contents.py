"""Checks of what a record says: the kind of every value that is read from it, and its place in DIR.

Records come from other people, too. What is checked here need not be doubted by whoever draws a table or a
figure, and no name in a record leads to a file outside DIR. A key that an earlier version did not write may
be missing. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalearn_benchmarks.experiments.axes import require_folder_name
from metalearn_benchmarks.host.folders import plain_name

Check = Callable[[Any], bool]
"""Whether a value is of its kind."""


def _is(*kinds: type) -> Check:
    return lambda value: type(value) in kinds


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _table_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _numbers(dimensions: int) -> Check:
    """Return the check for a list, or a list of lists, of numbers and nulls."""

    def check(value: Any) -> bool:
        try:
            return isinstance(value, list) and number_array(value).ndim == dimensions
        except ValueError:
            return False

    return check


def _drawn_task(value: Any) -> bool:
    """Return whether curves can be drawn: inputs and targets, and a prediction for each query input."""
    points = _numbers(2)
    if not isinstance(value, dict) or not points(value.get("support")) or not points(value.get("query")):
        return value is None
    lines = value.get("predictions")
    return (
        len(value["support"]) == len(value["query"]) == 2
        and isinstance(lines, dict)
        and bool(lines)
        and all(re.fullmatch(r"\d{1,9}", step) for step in lines)
        and all(_numbers(1)(line) and len(line) == len(value["query"][0]) for line in lines.values())
    )


def _rule_response(value: Any) -> bool:
    if not isinstance(value, dict):
        return value is None
    response, path = value.get("response"), value.get("path")
    if response and not (
        isinstance(response, dict)
        and _numbers(1)(response.get("gradients"))
        and _numbers(1)(response.get("quantiles"))
        and _numbers(3)(response.get("updates"))
        and number_array(response["updates"]).shape[1:]
        == (len(response["quantiles"]), len(response["gradients"]))
    ):
        return False
    columns = ("steps", "gradient", "update", "alignment")
    return not path or (
        isinstance(path, dict)
        and all(_numbers(1)(path.get(key)) for key in columns)
        and len({len(path[key]) for key in columns}) == 1
    )


def _component(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("name")) is str and _is(dict)(value.get("options", {}))


def _summary(value: Any) -> bool:
    number = _is(int, float, type(None))
    return (
        isinstance(value, dict)
        and all(number(value.get(key)) for key in ("mean", "median", "tasks"))
        and _list_of(number)(value.get("ci95"))
        and len(value["ci95"]) == 2
    )


def _validations(value: Any) -> bool:
    return value == [] or (_numbers(2)(value) and all(len(one) == 2 and _count(one[0]) for one in value))


def _archived(value: Any) -> bool:
    digest = value.get("sha256") if isinstance(value, dict) else None
    return type(digest) is str and re.fullmatch("[0-9a-f]{64}", digest) is not None


_text, _table = _is(str), _is(dict)
_CELL: dict[str, Check] = {
    "experiment": _text, "setting": _text, "name": _text, "seed": _count, "scale": _text,
    "family": _component, "learner": _component, "method": _table, "test_tasks": _count,
    "also_tested_on": _list_of(_component), "device": _text, "threads": _count, "processes": _count,
    "data": _table_of(_text), "seeds_together": _list_of(_count), "test": _table_of(_count),
}  # fmt: skip
_METHOD: dict[str, Check] = {
    "title": _text, "source": _text, "start": _text, "adapts": _text, "rule": _text, "options": _table,
    "settings": _table, "minibatch": _count, "learner": _table, "protocol": _text,
    "meta_gradient": _text, "meta_gradient_options": _table,
}  # fmt: skip
_SETTINGS: dict[str, Check] = {
    **dict.fromkeys(
        ("tasks", "meta_batch", "steps", "test_steps", "validation_interval", "validation_tasks",
         "evaluation_batch", "task_seed", "checkpoint_every", "tasks_at_once", "truncate"), _count,
    ),
    **dict.fromkeys(("order", "outer_loss", "outer_clip_scope", "engine"), _text),
    **dict.fromkeys(("outer_decay", "warm_up", "checkpoint_seconds"), _is(int, float)),
    "outer_lr": _is(int, float, dict),
    **dict.fromkeys(("inner_clip", "outer_clip"), _table),
}  # fmt: skip
_RESULT: dict[str, Check] = {
    "experiment": _text, "setting": _text, "method": _text, "seed": _count,
    "score": _text, "higher_is_better": _is(bool), "scores": _table, "final": _table, "summary": _summary,
    "validations": _validations, "best_position": _count, "diverged": _is(str, type(None)),
    "curves": _drawn_task, "rule_response": _rule_response, "batch_norm": _text, "meta_parameters": _count,
    "parameters": _count, "data": _table_of(_text), "peak_memory_bytes": _count, "seconds": _is(int, float),
    "versions": _table_of(_text), "commit": _is(str, type(None)), "device": _text, "engine": _text,
    "threads": _count, "processes": _count, "seeds_together": _list_of(_count), "protocol": _text,
    "by_step": _table_of(_numbers(1)), "archived": _archived,
}  # fmt: skip
_OF_A_CELL = ("experiment", "setting", "name", "seed", "family", "learner", "method")
_OF_A_METHOD = ("title", "start", "rule", "options", "settings")
_OF_A_RESULT = ("score", "higher_is_better", "seconds", "diverged")


def require_cell(cell: Mapping[str, Any]) -> None:
    """Check what a run was asked for.

    Args:
        cell: The contents of its `experiment.toml`.

    Raises:
        ValueError: A key is missing, or its value is of another kind. The message names the key.
    """
    _require_table(cell, _CELL, _OF_A_CELL)
    _require_table(cell["method"], _METHOD, _OF_A_METHOD, "method.")
    _require_table(cell["method"]["settings"], _SETTINGS, (), "method.settings.")
    for kind, key in (("experiment", "experiment"), ("setting", "setting"), ("method", "name")):
        require_folder_name(kind, cell[key])


def require_result(result: Mapping[str, Any]) -> None:
    """Check what came out of a run.

    Args:
        result: The contents of its `result.json`.

    Raises:
        ValueError: A key is missing, or its value is of another kind. The message names the key.
    """
    _require_table(result, _RESULT, _OF_A_RESULT)
    for key in ("scores", "final", "by_step"):
        for family in result.get(key, {}):
            if re.search(r"[/\\\x00-\x1f\x7f]", family) or family.strip(".") == "":
                raise ValueError(f"{key}: {family!r} is no name of a family of tasks")


def _require_table(
    table: Mapping[str, Any], kinds: Mapping[str, Check], needed: tuple[str, ...], path: str = ""
) -> None:
    for key in needed:
        if key not in table:
            raise ValueError(f"it lacks the key {path + key!r}")
    for key, value in table.items():
        if key in kinds and not kinds[key](value):
            raise ValueError(f"{path}{key} cannot be {value!r:.80}")


def require_place(folder: PurePath, cell: Mapping[str, Any]) -> None:
    """Check that a run lies in the folder of its method and its seed.

    Args:
        folder: The absolute path of the run's folder.
        cell: The contents of its `experiment.toml`.

    Raises:
        ValueError: It belongs elsewhere.
    """
    own = (cell["name"], str(cell["seed"]))
    # earlier versions named folders as the rows are named
    if folder.parts[-2:] not in (own, (plain_name(own[0]), own[1])):
        raise ValueError(
            f"it is of {cell['name']}, seed {cell['seed']}, and lies in {'/'.join(folder.parts[-2:])}"
        )


def number_array(values: Any) -> NDArray[np.float64]:
    """Return nested lists of numbers as an array, with NaN for null.

    Raises:
        ValueError: Something else is in them, or the lists are of different lengths.
    """
    try:
        found = np.array(values)
        if found.dtype.kind == "O":
            kinds = set(map(type, found.flat))
            if not kinds <= {int, float, type(None)}:
                raise ValueError("expected numbers")
        elif found.dtype.kind not in "iuf":
            raise ValueError("expected numbers")
        return found.astype(np.float64, copy=False)
    except (OverflowError, RecursionError, TypeError) as error:
        raise ValueError(str(error)) from error
