"""Classifiers on bare pixels. A method that scores no higher has learned nothing of use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metalearn_core import Signal, State, Task, TaskFamily, TaskStream, UpdateRule, UsageError

TASKS_AT_A_TIME = 50
"""Tasks that are looked up at a time."""
Values: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int64]
Classifier: TypeAlias = Callable[[Values, Labels, Values], Labels]
"""Of support inputs `[k, features]`, their classes `[k]` and query inputs `[q, features]`: what these are."""


class IdentityRule(UpdateRule):
    """The rule θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾, for methods that have no rule."""

    elementwise = True

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        return theta, state


def pixel_scores(
    classifier: Classifier, family: TaskFamily, split: str, tasks: int, seed: int,
    watch: Callable[[int], None] = lambda done: None,
) -> Tensor:  # fmt: skip
    """Score a classifier on the query set of each of the first tasks of a stream.

    Args:
        classifier: One of `CLASSIFIERS`, or a function like those.
        family: The task family. Its targets must be classes.
        split: The split that tasks are drawn from.
        tasks: How many tasks.
        seed: The seed of the stream. The same seed gives the tasks that methods are tested on.
        watch: Called with the number of tasks that are done.

    Returns:
        Accuracies in [0, 1], `[tasks, 1]`.

    Raises:
        UsageError: The targets of the family are no classes.
    """
    scores = list[float]()
    for some in TaskStream(family, split, seed, torch.device("cpu"), torch.float32).batches(
        tasks, TASKS_AT_A_TIME
    ):
        watch(len(scores))
        if some.support.targets.is_floating_point():
            raise UsageError(f"{type(family).__name__}: its targets are no classes; leave classifiers out")
        for index in range(len(some)):
            support, labels, query, truth = _flat(some[index])
            scores.append(float((classifier(support, labels, query) == truth).mean()))
    return torch.tensor(scores)[:, None]


def _flat(task: Task) -> tuple[Values, Labels, Values, Labels]:
    support, labels, query, truth = task.tensors
    return support.flatten(1).numpy(), labels.numpy(), query.flatten(1).numpy(), truth.numpy()


def nearest_centroid(support: Values, labels: Labels, query: Values) -> Labels:
    """Predict the class whose mean support input is nearest in Euclidean distance."""
    found = np.unique(labels)
    means = np.stack([support[labels == label].mean(0) for label in found])
    # |q - m|² without |q|², which is the same for every class
    nearest: Labels = found[((means**2).sum(1) - 2 * query @ means.T).argmin(1)]
    return nearest


def logistic_regression(support: Values, labels: Labels, query: Values) -> Labels:
    """Predict by scikit-learn's logistic regression, C = 1.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise UsageError(
            f"logistic regression needs scikit-learn ({error}): in the checkout,"
            " pip install -e './benchmarks[images]'"
        ) from error
    with warnings.catch_warnings():
        # what it has found by then is a floor all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(LogisticRegression(max_iter=1000).fit(support, labels).predict(query))


CLASSIFIERS: Mapping[str, Classifier] = {
    "nearest-centroid": nearest_centroid,
    "logistic-regression": logistic_regression,
}
"""By name, as a method with `start = "pixels"` has it for `rule`."""
