"""Peers that loop over the tasks of a meta-batch: `higher`, and clones of a module in learn2learn's style."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metalearn_benchmarks.speed.peers.base import Peer
from metalearn_benchmarks.speed.peers.torch_arrays import TorchArrays, trainable_copies
from metalearn_benchmarks.speed.work import INNER_LR, RULES, Gradients, Work
from metalearn_core import Task


def higher_loop(work: Work) -> Peer:
    """Return `higher` as its documentation uses it: a loop over tasks, the module patched for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import higher
    setting, module, memory = work.setting, work.plain(), dict[str, Any]()
    phi, criterion = trainable_copies(work)[1:], work.criterion
    if (setting.learner, setting.rule) == ("conv-4", "maml"):
        optimizer: Any = torch.optim.SGD(module.parameters(), lr=INNER_LR)
    else:
        optimizer = _flat_optimizer(higher, work, phi, memory)(module.parameters())
    first = setting.order == "first"

    def query_loss(task: Task) -> Tensor:
        support, query = task.support, task.query
        with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (model, inner):
            memory["state"] = RULES[setting.rule][1](TorchArrays, work.theta)
            for _ in range(setting.steps):
                loss = criterion(model(support.inputs), support.targets)
                memory["loss"] = loss.detach() if first else loss
                inner.step(loss, grad_callback=_detach_all if first else None)
            return criterion(model(query.inputs), query.targets)

    return _one_by_one([*module.parameters(), *phi], query_loss)


def clone_loop(work: Work) -> Peer:
    """Return learn2learn's style in torch alone: each task has a clone of the module, and updates that.

    Its MAML clones the parameters within the graph, and each step puts new ones in their places.
    """
    setting, module, criterion = work.setting, work.plain(), work.criterion
    phi, (update, start) = trainable_copies(work)[1:], RULES[setting.rule]
    first = setting.order == "first"

    def query_loss(task: Task) -> Tensor:
        clone, state = clone_module(module), start(TorchArrays, work.theta)
        for _ in range(setting.steps):
            loss = criterion(clone(task.support.inputs), task.support.targets)
            places = [(part, name) for part in clone.modules() for name in part._parameters]
            values = [part._parameters[name] for part, name in places]
            grads = torch.autograd.grad(loss, values, create_graph=not first)
            if setting.rule == "maml":
                new = [p - INNER_LR * g for p, g in zip(values, grads, strict=True)]
            else:
                theta, grad = (torch.cat([x.reshape(-1) for x in xs]) for xs in (values, grads))
                shown = loss.detach() if first else loss
                theta, state = update(TorchArrays, phi, theta, grad, shown, state)
                parts = torch.split(theta, [p.numel() for p in values])
                new = [part.reshape(p.shape) for part, p in zip(parts, values, strict=True)]
            for (part, name), value in zip(places, new, strict=True):
                part._parameters[name] = value
        return criterion(clone(task.query.inputs), task.query.targets)

    return _one_by_one([*module.parameters(), *phi], query_loss)


def clone_module(module: torch.nn.Module) -> Any:
    """Return a module that computes with copies of the parameters, through which gradients flow."""
    clone: Any = copy.copy(module)
    clone._parameters = {name: None if p is None else p.clone() for name, p in module._parameters.items()}
    clone._modules = {name: clone_module(part) for name, part in module._modules.items() if part is not None}
    return clone


def _one_by_one(parameters: list[Tensor], query_loss: Callable[[Task], Tensor]) -> Peer:
    """The mean over tasks and its gradient; a task's graph is freed before the next one is made."""

    def gradient(tasks: Task) -> Gradients:
        losses, grads = [], [torch.zeros_like(p) for p in parameters]
        for i in range(len(tasks)):
            loss = query_loss(tasks[i]) / len(tasks)
            found = torch.autograd.grad(loss, parameters, materialize_grads=True)
            grads = [total + g for total, g in zip(grads, found, strict=True)]
            losses.append(loss.detach())
        return [torch.stack(losses).sum(), *grads]

    return Peer(parameters, gradient)


def _detach_all(grads: list[Tensor]) -> list[Tensor]:
    return [g.detach() for g in grads]


def _flat_optimizer(higher: Any, work: Work, phi: list[Tensor], memory: dict[str, Any]) -> Any:
    """An optimiser whose differentiable form takes the work's update, on all parameters in one vector."""

    class Flat(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {})

    class DifferentiableFlat(higher.optim.DifferentiableOptimizer):  # type: ignore[misc]
        def _update(self, grouped_grads: list[list[Tensor]], **kwargs: Any) -> None:
            group = self.param_groups[0]
            shapes = [p.shape for p in group["params"]]
            theta, grad = (
                torch.cat([x.reshape(-1) for x in xs]) for xs in (group["params"], grouped_grads[0])
            )
            update = RULES[work.setting.rule][0]
            theta, memory["state"] = update(TorchArrays, phi, theta, grad, memory["loss"], memory["state"])
            parts = torch.split(theta, [shape.numel() for shape in shapes])
            group["params"] = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    higher.register_optim(Flat, DifferentiableFlat)
    return Flat
