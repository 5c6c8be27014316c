"""Outer gradients: what takes the place of backpropagation through the inner loop (Algorithm 9, line 11)."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import UsageError, require_callables, require_kinds, user_code
from metalearn_core.inner_loop import per_task
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.task import Task
from metalearn_core.training.meta_gradient import meta_gradient


class AnswerError(UsageError):
    """An outer gradient answered, and not as `meta_gradient` does."""


MetaGradient: TypeAlias = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]
"""A function that is called as `meta_gradient` is, and answers as it does."""
BACKPROPAGATION = "backpropagation"
"""The name of `meta_gradient` itself."""
KEYS = "keys"
"""The parameter of a function that draws random numbers."""
ARGUMENTS = (*inspect.signature(meta_gradient).parameters, KEYS)
"""What the outer loop gives; all else that a function takes is an option."""


def query_losses(learner: BaseLearner, theta: Tensor, task: Task) -> Tensor:
    """The query loss of each task, for those who write an outer gradient.

    Args:
        learner: the base-learner.
        theta: `[tasks, n]`, one θ for each task.
        task: a stacked meta-batch.

    Returns:
        `[tasks]`, which can be differentiated for θ. Each depends on its own row of θ alone, so the gradient
        of their sum has each task's own gradient in its row.

    Example:
        >>> import torch
        >>> from metalearn_core import query_losses
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner, task = tiny_learner(), TinySines().sample("train", 3, torch.Generator().manual_seed(0))
        >>> query_losses(learner, torch.zeros(3, learner.layout.size), task).shape
        torch.Size([3])
    """
    return per_task(learner.loss, theta, task.query, *learner.context(task))


def support_losses(learner: BaseLearner, theta: Tensor, task: Task, step: int = 0) -> Tensor:
    """The support loss of each task, as `query_losses` has the other.

    Args:
        learner: the base-learner.
        theta: `[tasks, n]`, one θ for each task.
        task: a stacked meta-batch.
        step: t, for a base-learner with a `support_loss` of its own.

    Returns:
        `[tasks]`, which can be differentiated for θ.

    Example:
        >>> import torch
        >>> from metalearn_core import support_losses
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner, task = tiny_learner(), TinySines().sample("train", 3, torch.Generator().manual_seed(0))
        >>> support_losses(learner, torch.zeros(3, learner.layout.size), task).shape
        torch.Size([3])
    """
    if learner.has_support_loss:
        return per_task(learner.support_loss, theta, task.support, step)
    return per_task(learner.loss, theta, task.support)


def task_keys(seed: int, position: int, count: int) -> Tensor:
    """Of tasks `position`, `position` + 1, ... of a run with that seed, a number each, `[count]`, int64.

    So what is drawn by them depends on seed and task alone, not on pieces, processes or a resumption.
    """
    texts = (f"{seed}/{position + index}" for index in range(count))
    return torch.tensor([int.from_bytes(hashlib.sha256(t.encode()).digest()[:8], "big") >> 1 for t in texts])


@attrs.frozen(eq=False)
class OuterGradient:
    """An outer gradient as the outer loop calls it: with its options, and its answer looked at.

    Args:
        function: called as `meta_gradient` is, and with `keys` if it has such a parameter.
        name: its name in messages, and in the fingerprint of a run.
        options: what is given to the function besides.
    """

    function: MetaGradient
    name: str
    options: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, given: MetaGradient | None) -> OuterGradient | None:
        """The same for a function; None for backpropagation, which the engine knows better."""
        require_callables("meta_train", optional=True, meta_gradient=given)
        if given is None or given is meta_gradient:
            return None
        if isinstance(given, cls):
            return given
        plain, options = given, {}
        if isinstance(given, functools.partial):
            plain, options = given.func, dict(given.keywords)
        return cls(plain, str(getattr(plain, "__qualname__", type(plain).__name__)), options)

    @property
    def keyed(self) -> bool:
        """Whether it draws random numbers, and is told a number for each task to draw them by."""
        return KEYS in inspect.signature(self.function).parameters

    def keys(
        self, generator: torch.Generator, position: int, count: int, device: torch.device
    ) -> dict[str, Tensor]:
        """The keyword `keys` of tasks from `position` on, where it takes one; `generator`: of the seed."""
        if not self.keyed:
            return {}
        return {KEYS: task_keys(generator.initial_seed(), position, count).to(device)}

    @property
    def description(self) -> str:
        """Name and options in one line, the same in every process."""
        told = ", ".join(f"{name}={value!r}" for name, value in sorted(self.options.items()))
        return f"{self.name}({told})"

    def __call__(
        self, rule: UpdateRule, learner: BaseLearner, theta: Tensor, task: Task, **settings: Any
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The answer of the function. Raises UsageError where it is not as that of `meta_gradient`."""
        who = f"meta-gradient {self.name!r}"
        require_kinds(who, rule=(rule, UpdateRule), learner=(learner, BaseLearner))
        require_kinds(who, theta=(theta, Tensor), task=(task, Task))
        task = task if task.stacked else Task.stack([task])
        with user_code(who, "it"):
            answer = self.function(rule, learner, theta, task, **settings, **self.options)
        wanted = {"the loss": (), "the gradient for θ⁰": tuple(theta.shape)}
        wanted |= {f"that for {name}": tuple(phi.shape) for name, phi in rule.named_parameters()}
        found = _shapes(answer)
        if found != wanted:
            raise AnswerError(
                f"{who}: it must return loss, gradient and {{name: gradient}} of every φ, with the shapes"
                f" {wanted}; it returned {found or f'a {type(answer).__name__}'}"
            )
        loss, grad, of_phi = answer
        return loss.detach(), grad.detach(), {name: of_phi[name] for name, _ in rule.named_parameters()}


def _shapes(answer: object) -> dict[str, tuple[int, ...] | str]:
    """Of an answer that is made as that of `meta_gradient`, the shape of each part; else nothing."""
    if not isinstance(answer, tuple) or len(answer) != 3 or not isinstance(answer[2], Mapping):
        return {}
    loss, grad, of_phi = answer
    parts = {"the loss": loss, "the gradient for θ⁰": grad}
    parts |= {f"that for {name}": g for name, g in of_phi.items()}
    return {k: tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__ for k, x in parts.items()}
