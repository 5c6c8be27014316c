"""What classifiers on bare pixels reach: below it, a method has learned nothing of use."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from metalearn_core import Task, TaskFamily, TaskStream, UsageError

BATCH = 50
"""Tasks that are looked up at a time."""
Values = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def floor_scores(family: TaskFamily, split: str, tasks: int, seed: int) -> Mapping[str, list[float]]:
    """Accuracy (a fraction) on the queries of each of the first `tasks` tasks, by classifier.

    `seed`: of the tasks; the same one gives the tasks that the methods are tested on. `nearest-centroid`: the
    class whose mean support image is nearest. `logistic-regression`: scikit-learn's, C = 1, on the support
    images.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"logistic regression needs scikit-learn ({error}): pip install 'metalearn-benchmarks[images]'"
        ) from error
    scores: dict[str, list[float]] = {"nearest-centroid": [], "logistic-regression": []}
    stream = TaskStream(family, split, seed, torch.device("cpu"), torch.float32)
    for some in stream.batches(tasks, BATCH):
        for index in range(len(some)):
            support, labels, query, truth = _flat(some[index])
            centroid, logistic = _centroid(support, labels, query), _logistic(support, labels, query)
            scores["nearest-centroid"].append(float((centroid == truth).mean()))
            scores["logistic-regression"].append(float((logistic == truth).mean()))
    return scores


def _flat(task: Task) -> tuple[Values, Labels, Values, Labels]:
    support, labels, query, truth = task.tensors
    return support.flatten(1).numpy(), labels.numpy(), query.flatten(1).numpy(), truth.numpy()


def _centroid(support: Values, labels: Labels, query: Values) -> Labels:
    found = np.unique(labels)
    means = np.stack([support[labels == label].mean(0) for label in found])
    # |q - m|² without |q|², which is the same for every class
    nearest: Labels = found[((means**2).sum(1) - 2 * query @ means.T).argmin(1)]
    return nearest


def _logistic(support: Values, labels: Labels, query: Values) -> Labels:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # what it has found by then is a floor all the same
        return np.asarray(LogisticRegression(max_iter=1000).fit(support, labels).predict(query))
