"""Adapt a head alone: the rest of the network computes its features of a task's inputs only once."""

from __future__ import annotations

import torch
from torch import Tensor

from metalearn_benchmarks.learners.head import Head
from metalearn_core import BaseLearner, Batch, Task, TaskFamily, UsageError


class FeatureFamily:
    """The tasks of a family, with the features that the head of a network receives as inputs.

    Adapting the head on these tasks equals adapting it inside the network, as long as all else is constant.
    The batch statistics of the network are those of the batch, support or query, as they would be there.

    Args:
        family: The family whose tasks these are.
        learner: The network. Its head must be the last thing it does.
        theta: Its parameters, `[n]`.
    """

    def __init__(self, family: TaskFamily, learner: BaseLearner, theta: Tensor) -> None:
        self.family, self._learner, self._device = family, learner, learner.device
        self._module, self._dtype = learner.module_at(theta).requires_grad_(False), learner.dtype
        self._head, self._seen = self._module.get_submodule(Head(learner).name), list[Tensor]()
        self._head.register_forward_pre_hook(lambda _, given: self._seen.append(given[0]))

    @property
    def splits(self) -> tuple[str, ...]:
        return self.family.splits

    def examples(self, split: str) -> Batch:
        raise NotImplementedError("FeatureFamily: it has tasks, no flat data")

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        return self.realise(split, self.draw(split, count, generator), self._dtype)

    def draw(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw tasks as a stream keeps them: with the family's own inputs, or what stands for them."""
        drawn: Task = getattr(self.family, "draw", self.family.sample)(split, count, generator)
        return drawn

    def realise(self, split: str, task: Task, dtype: torch.dtype) -> Task:
        """Replace the inputs of drawn tasks by features."""
        if hasattr(self.family, "realise"):
            task = self.family.realise(split, task, dtype)
        task = task.to(self._device, dtype)
        return Task(
            self._seen_of(task.support), self._seen_of(task.query, self._learner.context(task)), stacked=True
        )

    @torch.no_grad()
    def _seen_of(self, batch: Batch, context: tuple[Tensor, ...] = ()) -> Batch:
        """`[tasks, k, ...]` to `[tasks, k, features]`, each by itself: batch statistics are its own."""
        each = zip(batch.inputs, *context, strict=True)
        return Batch(torch.stack([self._features(*given) for given in each]), batch.targets, stacked=True)

    def _features(self, *given: Tensor) -> Tensor:
        self._seen.clear()
        output = self._module(*given)
        if len(self._seen) != 1 or not torch.equal(self._head(self._seen[0]), output):
            name = type(self._module).__name__
            raise UsageError(f"{name}: a new head for each task needs a network that ends with its head")
        return self._seen[0]


def head_on_features(learner: BaseLearner, theta: Tensor) -> tuple[BaseLearner, Tensor]:
    """Make the head of a network a base-learner of its own, for the tasks of `FeatureFamily`.

    Args:
        learner: The network.
        theta: Its parameters, `[n]`.

    Returns:
        The base-learner of the head, and its parameters, `[n_head]`.
    """
    head = learner.with_module(learner.module_at(theta).get_submodule(Head(learner).name))
    parameters = {name: p.detach() for name, p in head.module.named_parameters() if p.requires_grad}
    return head, head.layout.flatten(parameters)
