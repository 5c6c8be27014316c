"""Who is timed: each peer computes the meta-gradient of the work as its own documentation would.

A peer that stands on another package imports it when it is made, and raises ImportError where it is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metalearn_benchmarks.speed.peers.base import Peer
from metalearn_benchmarks.speed.peers.jax_program import jax_jit
from metalearn_benchmarks.speed.peers.loops import _own_copies, _Torch, clone_loop, higher_loop
from metalearn_benchmarks.speed.work import INNER_LR, RULES, Gradients, Work, squared_error, task_loss
from metalearn_core import CompiledMetaGradient, Task, meta_gradient


def eager(work: Work) -> Peer:
    """Our engine, eager."""
    steps, order = work.setting.steps, work.setting.order

    def gradient(task: Task) -> Gradients:
        loss, grad, phi = meta_gradient(work.rule, work.learner, work.theta, task, steps=steps, order=order)
        return [loss, grad, *phi.values()]

    return Peer([work.theta, *work.rule.parameters()], gradient)


def compiled(work: Work) -> Peer:
    """Our engine, compiled."""
    setting = work.setting
    program = CompiledMetaGradient(work.rule, work.learner, steps=setting.steps, order=setting.order)

    def gradient(task: Task) -> Gradients:
        loss, grad, phi = program(work.theta, task)
        return [loss, grad, *phi.values()]

    return Peer([work.theta, *work.rule.parameters()], gradient)


def _over_tasks(work: Work, one: Callable[..., Tensor]) -> Peer:
    """`torch.func`'s grad of vmap of the loss of one task."""
    parameters = _own_copies(work)
    every = torch.func.vmap(one, in_dims=(None, None, 0, 0, 0, 0))
    both = torch.func.grad_and_value(lambda theta, phi, *t: every(theta, phi, *t).mean(), argnums=(0, 1))

    def gradient(task: Task) -> Gradients:
        theta, *phi = (x.detach() for x in parameters)
        (grad, phi_grads), loss = both(theta, phi, *task.tensors)
        return [loss, grad, *phi_grads]

    return Peer(parameters, gradient)


def torch_func(work: Work) -> Peer:
    """`torch.func`: grad of vmap of grad; on images vmap of grad of grad, and grouped convolutions.

    The gradient of a vmapped gradient of an affine batch norm is wrong in torch 2.13, by some per cent.
    """
    if work.setting.learner == "mlp":
        return _over_tasks(work, task_loss(_Torch, work))
    parameters = _own_copies(work)
    both = torch.func.grad_and_value(task_loss(_Torch, work), argnums=(0, 1))
    every = torch.func.vmap(both, in_dims=(None, None, 0, 0, 0, 0))

    def gradient(task: Task) -> Gradients:
        theta, *phi = (x.detach() for x in parameters)
        (grad, phi_grads), losses = every(theta, phi, *task.tensors)
        return [losses.mean(), grad.mean(0), *(g.mean(0) for g in phi_grads)]

    return Peer(parameters, gradient)


def torchopt_functional(work: Work) -> Peer:
    """TorchOpt's functional optimisers under vmap; a learned rule is a gradient transformation of our own."""
    import torchopt

    setting, form = work.setting, torchopt.base.GradientTransformation

    def support_loss(theta: Tensor, inputs: Tensor, targets: Tensor) -> Any:
        return squared_error(_Torch, setting.width, theta, inputs, targets)

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
        theta, memory = update(_Torch, phi, params, grad, *state)
        return theta - params, (state[0], memory)

    return form(lambda theta: (None, start(_Torch, theta)), change)


PEERS: dict[str, Callable[[Work], Peer]] = {
    "higher loop": higher_loop,
    "clone loop": clone_loop,
    "torch.func": torch_func,
    "TorchOpt": torchopt_functional,
    "eager": eager,
    "compiled": compiled,
    "jax": jax_jit,
}
"""By the name they have in the table."""
