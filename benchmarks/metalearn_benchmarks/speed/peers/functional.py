"""Peers that map the loss of one task over a meta-batch: `torch.func`, and TorchOpt's optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metalearn_benchmarks.speed.peers.base import Peer
from metalearn_benchmarks.speed.peers.torch_arrays import TorchArrays, trainable_copies
from metalearn_benchmarks.speed.work import INNER_LR, RULES, Gradients, Work, squared_error, task_loss
from metalearn_core import Task


def torch_func(work: Work) -> Peer:
    """Return `torch.func`: grad of vmap of grad; on images vmap of grad of grad, and grouped convolutions.

    The gradient of a vmapped gradient of an affine batch norm is wrong in torch 2.13, by some per cent.
    """
    if work.setting.learner == "mlp":
        return _over_tasks(work, task_loss(TorchArrays, work))
    parameters = trainable_copies(work)
    both = torch.func.grad_and_value(task_loss(TorchArrays, work), argnums=(0, 1))
    every = torch.func.vmap(both, in_dims=(None, None, 0, 0, 0, 0))

    def gradient(task: Task) -> Gradients:
        theta, *phi = (x.detach() for x in parameters)
        (grad, phi_grads), losses = every(theta, phi, *task.tensors)
        return [losses.mean(), grad.mean(0), *(g.mean(0) for g in phi_grads)]

    return Peer(parameters, gradient)


def torchopt_functional(work: Work) -> Peer:
    """Return TorchOpt's functional optimisers under vmap.

    A learned rule is a gradient transformation of our own.
    """
    import torchopt

    setting, form = work.setting, torchopt.base.GradientTransformation

    def support_loss(theta: Tensor, inputs: Tensor, targets: Tensor) -> Any:
        return squared_error(TorchArrays, setting.width, theta, inputs, targets)

    def query_loss(theta: Tensor, phi: Any, si: Tensor, st: Tensor, qi: Tensor, qt: Tensor) -> Any:
        optimizer = torchopt.sgd(INNER_LR) if setting.rule == "maml" else _transformation(form, work, phi)
        state = optimizer.init(theta)
        for _ in range(setting.steps):
            grad, loss = torch.func.grad_and_value(support_loss)(theta, si, st)
            if setting.order == "first":
                grad, loss = grad.detach(), loss.detach()
            if setting.rule != "maml":
                state = (loss, state[1])
            updates, state = optimizer.update(grad, state, params=theta, inplace=False)
            theta = torchopt.apply_updates(theta, updates, inplace=False)
        return support_loss(theta, qi, qt)

    return _over_tasks(work, query_loss)


def _transformation(form: Any, work: Work, phi: Any) -> Any:
    """The work's rule in TorchOpt's form; its state is (the loss, the rule's own)."""
    update, start = RULES[work.setting.rule]

    def change(grad: Tensor, state: Any, *, params: Any = None, inplace: bool = False) -> Any:
        theta, memory = update(TorchArrays, phi, params, grad, *state)
        return theta - params, (state[0], memory)

    return form(lambda theta: (None, start(TorchArrays, theta)), change)


def _over_tasks(work: Work, one: Callable[..., Tensor]) -> Peer:
    """`torch.func`'s grad of vmap of the loss of one task."""
    parameters = trainable_copies(work)
    every = torch.func.vmap(one, in_dims=(None, None, 0, 0, 0, 0))
    both = torch.func.grad_and_value(lambda theta, phi, *t: every(theta, phi, *t).mean(), argnums=(0, 1))

    def gradient(task: Task) -> Gradients:
        theta, *phi = (x.detach() for x in parameters)
        (grad, phi_grads), loss = both(theta, phi, *task.tensors)
        return [loss, grad, *phi_grads]

    return Peer(parameters, gradient)
