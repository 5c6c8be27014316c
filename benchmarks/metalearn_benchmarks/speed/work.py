"""The work that is timed, a meta-gradient, and its equations for any array library.

The equations are written here a second time and not taken from the rules, so that a peer is independent of
this engine. A peer that disagrees with the engine is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_benchmarks.speed import images
from metalearn_benchmarks.speed.settings import Setting
from metalearn_core import (
    BaseLearner,
    Task,
    TaskFamily,
    TaskStream,
    UpdateRule,
    base_learners,
    make_rule,
    task_families,
)

INNER_LR, OUTER_LR = 0.01, 0.001
SUPPORT, QUERY = 5, 50
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "maml": ("gradient-descent", {"inner_lr": INNER_LR}),
    "turtle": ("feed-forward", {}),
    "lstm": ("lstm", {"hidden": 20}),
}


@attrs.frozen(eq=False)
class Work:
    """A setting with all its random data.

    Args:
        setting: The setting.
        rule: The update rule, with its φ.
        learner: The base-learner.
        family: The task family.
        theta: θ⁰, `[n]`.
        task: The first meta-batch of the training tasks.
    """

    setting: Setting
    rule: UpdateRule
    learner: BaseLearner
    family: TaskFamily
    theta: Tensor
    task: Task

    @classmethod
    def of(cls, setting: Setting) -> Work:
        """Make the work of a setting in float32.

        It is sine regression with 5 support and 50 query points and two hidden layers, or images and Conv-4.
        """
        learner, family = _sine(setting) if setting.learner == "mlp" else _images(setting)
        rule, options = OPTIONS[setting.rule]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = make_rule(rule, learner.layout, **options)
        theta = learner.initial(weights())
        return cls(setting, made, learner, family, theta, _tasks(setting, family, learner, 0))

    @property
    def phi(self) -> list[Tensor]:
        """The parameters φ of the rule, in its order."""
        return [parameter.detach() for parameter in self.rule.parameters()]

    def meta_batches(self, count: int) -> list[Task]:
        """Return `count` meta-batches of the same shape, the first of which is `task`."""
        others = (_tasks(self.setting, self.family, self.learner, i) for i in range(1, count))
        return [self.task, *others]

    @property
    def criterion(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The function that maps prediction and target to the mean loss."""
        functional = torch.nn.functional
        return functional.mse_loss if self.setting.learner == "mlp" else functional.cross_entropy

    def plain(self) -> torch.nn.Module:
        """Return the network in torch's own layers, with the parameters θ⁰ in their order."""
        if self.setting.learner == "mlp":
            return self.learner.module_at(self.theta)
        module = images.plain(self.setting)
        torch.nn.utils.vector_to_parameters(self.theta.clone(), module.parameters())
        return module

    @property
    def operations(self) -> float:
        """The useful floating-point operations: the networks' forward and backward passes over all steps."""
        n, steps = self.learner.layout.size, self.setting.steps
        passes = 2 if self.setting.order == "second" else 1
        each = 2.0 * n if self.setting.learner == "mlp" else images.operations(self.setting)
        support, query = len(self.task.support), len(self.task.query)
        learner = 3 * each * (support * steps * passes + query)
        matrices = sum(p.numel() for p in self.phi if p.ndim == 2)
        return float(self.setting.seeds * self.setting.tasks * (learner + 6 * matrices * n * steps))


def _sine(setting: Setting) -> tuple[BaseLearner, TaskFamily]:
    learner = base_learners()["mlp"](inputs=1, hidden=[setting.width] * 2, outputs=1)
    return learner, task_families()["sine"](support=SUPPORT, query=QUERY)


def _images(setting: Setting) -> tuple[BaseLearner, TaskFamily]:
    return images.learner(setting), images.Noise(setting)


def _tasks(setting: Setting, family: TaskFamily, learner: BaseLearner, index: int) -> Task:
    """A meta-batch by number; of images drawn alone, since a stream draws a hundred tasks at once."""
    if setting.learner == "mlp":
        return stream(family, learner).take(index * setting.tasks, setting.tasks)
    return family.sample("train", setting.tasks, weights(1 + index))


def weights(seed: int = 0) -> torch.Generator:
    """Return the generator that θ⁰ is drawn from."""
    return torch.Generator().manual_seed(seed)


def stream(family: TaskFamily, learner: BaseLearner) -> TaskStream:
    """Return the training tasks that `meta_train` has."""
    return TaskStream(family, "train", 0, learner.device, learner.dtype)


Gradients = Sequence[Any]
"""The loss, its gradient for θ⁰, whole or in parts, then for every φ."""


def task_loss(lib: Any, work: Work) -> Callable[..., Any]:
    """Return the query loss of one task as a function.

    Args:
        lib: The array library: its functions as attributes. Images need torch.
        work: The work.

    Returns:
        `f(theta, phi, support inputs, support targets, query inputs, query targets)`.
    """
    setting, (update, start) = work.setting, RULES[work.setting.rule]

    def squared(theta: Any, inputs: Any, targets: Any) -> Any:
        return squared_error(lib, setting.width, theta, inputs, targets)

    support_loss = squared if setting.learner == "mlp" else images.loss_of(work.plain())

    def loss(theta: Any, phi: Any, si: Any, st: Any, qi: Any, qt: Any) -> Any:
        state = start(lib, theta)
        for _ in range(setting.steps):
            value, grad = lib.value_and_grad(support_loss)(theta, si, st)
            if setting.order == "first":
                value, grad = lib.stop_gradient(value), lib.stop_gradient(grad)
            theta, state = update(lib, phi, theta, grad, value, state)
        return support_loss(theta, qi, qt)

    return loss


def squared_error(lib: Any, width: int, theta: Any, x: Any, targets: Any) -> Any:
    """Return the mean squared error of a ReLU network.

    Args:
        lib: The array library.
        width: Width of both hidden layers.
        theta: The parameters, `[n]`.
        x: Inputs, `[examples, 1]`.
        targets: Targets, `[examples, 1]`.
    """
    at, widths = 0, (1, width, width, 1)
    for index, (before, after) in enumerate(pairwise(widths)):
        weight = theta[at : at + before * after].reshape(after, before)
        bias = theta[at + before * after : at + before * after + after]
        at += before * after + after
        x = x @ weight.T + bias
        x = lib.relu(x) if index < len(widths) - 2 else x
    return ((x - targets) ** 2).mean()


def _descend(lib: Any, phi: Any, theta: Any, grad: Any, loss: Any, state: Any) -> Any:
    return theta - INNER_LR * grad, state


def _propose(lib: Any, phi: Any, theta: Any, grad: Any, loss: Any, state: Any) -> Any:
    x = grad[:, None]
    for index in range(0, len(phi), 2):
        x = x @ phi[index].T + phi[index + 1]
        x = lib.relu(x) if index < len(phi) - 2 else x
    return theta + x[:, 0], state


def _gate(lib: Any, phi: Any, theta: Any, grad: Any, loss: Any, state: Any) -> Any:
    wf, bf, wi, bi, wx, bx, wh, bh = phi
    f_before, i_before, h, c = state
    x = lib.stack([grad, loss + 0 * grad], -1)
    i, f, g, o = lib.split(x @ wx.T + bx + h @ wh.T + bh, 4)
    c = lib.sigmoid(f) * c + lib.sigmoid(i) * lib.tanh(g)
    h = lib.sigmoid(o) * lib.tanh(c)

    def gate(weight: Any, bias: Any, before: Any) -> Any:
        joined = lib.concatenate([h, theta[:, None], before[:, None]], -1)
        return lib.sigmoid((joined @ weight.T + bias)[:, 0])

    f_now, i_now = gate(wf, bf, f_before), gate(wi, bi, i_before)
    return f_now * theta - i_now * grad, (f_now, i_now, h, c)


def _memory(lib: Any, theta: Any) -> Any:
    wide = lib.zeros((theta.shape[0], 20))
    return 0 * theta, 0 * theta, wide, wide


RULES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "maml": (_descend, lambda lib, theta: ()),
    "turtle": (_propose, lambda lib, theta: ()),
    "lstm": (_gate, _memory),
}
