"""Select the records that belong in a figure of the paper.

Records are matched by the options of their runs, never by the name of an experiment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from metalearn_benchmarks.claims.published import trained_as_published
from metalearn_benchmarks.records.record import Record

GRADIENT_ORDERS = ("first", "second")

SIZE_SETTINGS = (
    "tasks", "meta_batch", "validation_tasks", "validation_interval", "task_seed", "outer_lr", "outer_loss",
)  # fmt: skip
"""The settings in which all runs of a figure must agree."""


def comparable_runs(
    records: Iterable[Record], but: Sequence[str] = ()
) -> list[tuple[dict[str, Any], list[Record]]]:
    """Group records whose runs may be compared in one figure.

    Args:
        records: the records.
        but: settings in which the runs of a group may differ.

    Returns:
        For each group the settings that its runs share and the runs, the largest runs first.
    """
    groups: dict[str, tuple[dict[str, Any], list[Record]]] = {}
    for record in records:
        settings = record.cell["method"]["settings"]
        size = {key: settings.get(key) for key in SIZE_SETTINGS if key not in but}
        size |= {"test_tasks": record.cell.get("test_tasks"), "protocol": record.result.get("protocol")}
        # shots differ within Figure 3.4, whose panels they are
        key = repr((size, record.cell["learner"], None if but else record.cell["family"]))
        groups.setdefault(key, (size, []))[1].append(record)
    return sorted(groups.values(), key=lambda group: -(group[0].get("tasks") or 0))


def distinct_runs(
    records: Iterable[Record], kind: Callable[[Record], Any]
) -> tuple[dict[tuple[Any, str, int, int], Record], int]:
    """Select one record for each kind, order, T and seed.

    A run that is in two experiments counts once. Where runs differ in something that the figure does not
    show, such as clipping, the first is used.

    Args:
        records: the records of a group.
        kind: a function that returns what the figure distinguishes beside order and T.

    Returns:
        The records by kind, order, T and seed, and the number of records left out that differ from these.
    """
    found: dict[tuple[Any, str, int, int], Record] = {}
    others = 0
    for record in records:
        settings = record.cell["method"]["settings"]
        key = (kind(record), settings["order"], settings["steps"], record.seed)
        first = found.setdefault(key, record)
        others += _numerical_settings(first) != _numerical_settings(record)
    return found, others


def _numerical_settings(record: Record) -> Any:
    """The part of a run's method that its numbers depend on."""
    method = record.cell["method"]
    loops = {k: v for k, v in method["settings"].items() if k not in ("engine", "checkpoint_seconds")}
    return method["rule"], method["options"], loops


def is_sine_run(record: Record) -> bool:
    """Whether a run is on 5-shot sine waves, with the same T at test as in training."""
    family, settings = record.cell["family"], record.cell["method"]["settings"]
    same = settings.get("test_steps", settings["steps"]) == settings["steps"]
    return bool(family["name"] == "sine" and family["options"].get("support") == 5 and same)


def depth_of(record: Record) -> int | None:
    """Return the hidden layers of the TURTLE of Section 3.5.1, −1 for MAML, None for other methods."""
    if _is_maml(record):
        return -1
    hidden = record.cell["method"]["options"].get("hidden", [])
    return len(hidden) if _is_turtle(record) and all(width == 20 for width in hidden) else None


def compared_method(record: Record) -> str | None:
    """Return the method of Figure 3.3 that a run is of, or None for another."""
    method = record.cell["method"]
    if _is_maml(record):
        return "MAML"
    if _is_turtle(record):
        return "TURTLE" if method["options"].get("hidden") == [20] * 5 else None
    if not _is_rule(record, "lstm", {"hidden": 20}):
        return None
    inputs, log = set(method["options"].get("inputs", [])), method["options"].get("preprocess") == "log"
    if (inputs, log) == ({"grad", "loss"}, True):
        return "Meta-learner LSTM"
    return "Enhanced meta-learner LSTM" if (inputs, log) == ({"grad"}, False) else None


def _is_maml(record: Record) -> bool:
    wanted = {"optimizer": "sgd", "learn_lr": "none"}
    return _is_rule(record, "gradient-descent", wanted)


def _is_turtle(record: Record) -> bool:
    wanted = {
        "inputs": ["grad"], "activation": "relu", "preprocess": "none", "history": "none", "learn_lr": "none",
    }  # fmt: skip
    return _is_rule(record, "feed-forward", wanted)


def _is_rule(record: Record, rule: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a run is of a meta-trained method with this update rule and these options."""
    method = record.cell["method"]
    options = method["options"]
    return bool(
        method["rule"] == rule
        and method["start"] == "meta"
        and method.get("adapts", "all") == "all"
        and trained_as_published(record.cell)
        and all(options.get(key, value) == value for key, value in wanted.items())
    )


def caption_of(size: Mapping[str, Any], groups: Iterable[Sequence[float]] = (), others: int = 0) -> str:
    """Return the end of a caption: the size of the runs, the seeds per mark, and what is left out.

    Args:
        size: the settings that the runs share, as `comparable_runs` gives them.
        groups: the scores behind each mark.
        others: the number of runs left out.
    """
    counts = sorted({len(group) for group in groups})
    seeds = f" {'–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seed(s)." if counts else ""
    left = f" {others} run(s) that differ from these in other settings are left out." if others else ""
    way = " Run the authors' way (protocol=authors)." if size["protocol"] == "authors" else ""
    return f"{size['tasks']:,} meta-training and {size['test_tasks']:,} test tasks.{seeds}{way}{left}"


def best_validation(record: Record) -> float:
    """The best validation score of a run; NaN where it has none."""
    scores = [math.nan if score is None else score for _, score in record.result.get("validations", [])]
    finite = [score for score in scores if not math.isnan(score)]
    best: Callable[[list[float]], float] = max if record.higher_is_better else min
    return best(finite) if finite else math.nan
